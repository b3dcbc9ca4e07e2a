"""What a walk leaves on disk after every finished block, so that one that was killed goes on behind it.

The folder holds a safetensors file per finished block, with everything in the block's state dict under its full name, and
``walk.json``, written anew after each. Inputs of the next block are not kept: finished blocks are run again, from their
files, which gives the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require
from secateurs.files import write_whole

__all__ = ["State", "digest", "digest_of_batches", "finished_files", "own_tensors"]

VERSION, WALK = 1, "walk.json"


def own_tensors(name: str, module: nn.Module) -> dict[str, Tensor]:
    """The state dict of a block under full names, in order."""
    return {f"{name}.{key}" if name else key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}


def digest(tensors: Iterable[Tensor]) -> str:
    """A hash of shapes, dtypes and bits."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def digest_of_batches(batches: Iterable[Any]) -> str:
    """A hash of every tensor in the calibration batches, of what else they hold and under which names."""
    found = hashlib.sha256()
    for batch in batches:
        leaves, spec = tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)  # a tokenizer's batch is no dict
        found.update(f"{spec} {[leaf for leaf in leaves if isinstance(leaf, (str, bool, int, float))]}".encode())
        found.update(digest(leaf for leaf in leaves if isinstance(leaf, Tensor)).encode())
    return found.hexdigest()


def finished_files(folder: str | Path) -> list[str]:
    """The names of the files of a folder's finished blocks, in order; :class:`CorruptFile` if there is no list of them."""
    return [entry["file"] for entry in _read(Path(folder))[1]]


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A folder's identity and its finished blocks."""
    try:
        data = json.loads((folder / WALK).read_text(encoding="utf-8"))
        version, identity, finished = data["version"], dict(data["identity"]), list(data["finished"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CorruptFile(f"{str(folder / WALK)!r} cannot be read: {error}") from error
    if version != VERSION:
        raise CorruptFile(f"the state in {str(folder)!r} has version {version!r}; this library reads {VERSION}")
    return identity, finished


def _differ(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What two identities differ in, of settings each by its name."""

    def keys(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
        return [key for key in {**a, **b} if a.get(key) != b.get(key)]

    inside = keys(mine.get("settings", {}), theirs.get("settings", {}))
    return [f"{key} ({', '.join(inside)})" if key == "settings" else key for key in keys(mine, theirs)]


class State:
    """The folder of a walk, new or to be continued.

    Args:
        folder: created where it does not exist.
        identity: what the walk's result depends on, as JSON-able data; a walk with another one is not continued.

    Raises:
        BadInput: the folder belongs to another walk, or holds something else.
        CorruptFile: it cannot be read.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]):
        self.folder = Path(folder)
        self._identity = json.loads(json.dumps(identity))
        self.finished: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / WALK).exists():
            self._read()
        elif any(not path.name.startswith(".") for path in self.folder.iterdir()):  # hidden: what a killed writer left
            raise BadInput(f"state={str(folder)!r} holds files, but no {WALK}: give a new or an empty folder")
        else:
            self._write()

    def save(self, name: str, module: nn.Module, dense: str, facts: Mapping[str, Any]) -> None:
        """Keep a finished block. ``dense`` is the digest of what it was before, ``facts`` what is to be known of it later."""
        tensors = {key: value.detach().cpu().contiguous() for key, value in own_tensors(name, module).items()}
        # two names of one tensor are stored twice: files know no sharing
        seen: set[int] = set()
        for key, value in tensors.items():
            tensors[key] = value.clone() if value.untyped_storage().data_ptr() in seen else value
            seen.add(value.untyped_storage().data_ptr())
        file = f"block-{len(self.finished):05d}.safetensors"
        content = require("safetensors.torch", "files").save(tensors, metadata={"format": "pt"})
        write_whole(self.folder / file, content)
        self.finished.append({"name": name, "file": file, "sha256": hashlib.sha256(content).hexdigest(), "dense": dense,
                              "facts": dict(facts)})  # fmt: skip
        self._write()

    def check(self, index: int, name: str, dense: str) -> dict[str, Any]:
        """What was kept of a finished block; :class:`BadInput` if its ``dense`` digest is another now."""
        entry = self.finished[index]
        if entry["dense"] != dense:
            raise BadInput(f"state={str(self.folder)!r} is of another model: {name!r} has other values than when it was "
                           "pruned; give the same model, unpruned, or another folder")  # fmt: skip
        return entry

    def restore(self, index: int, name: str, module: nn.Module) -> None:
        """Give a finished block its pruned values back."""
        stored = self.load(index)
        for key, value in own_tensors(name, module).items():
            value.copy_(stored[key])

    def load(self, index: int) -> dict[str, Tensor]:
        """The tensors of a finished block; :class:`CorruptFile` if they are not what was written."""
        entry = self.finished[index]
        path = self.folder / entry["file"]
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise CorruptFile(f"{str(path)!r} is missing, truncated or altered: remove {str(self.folder)!r} and start again")
        return require("safetensors.torch", "files").load(content)

    def _read(self) -> None:
        identity, finished = _read(self.folder)
        differ = _differ(self._identity, identity)
        if differ:
            raise BadInput(f"state={str(self.folder)!r} is of another run, which differs in {', '.join(differ)}: give the same "
                           "settings, model and calibration, or another folder")  # fmt: skip
        self.finished = finished

    def _write(self) -> None:
        data = {"format": "secateurs-walk", "version": VERSION, "identity": self._identity, "finished": self.finished}
        write_whole(self.folder / WALK, (json.dumps(data, indent=1) + "\n").encode())
