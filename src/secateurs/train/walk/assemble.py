"""From the finished blocks of a streamed walk and the shards it read to a folder that transformers opens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.formats.huggingface import copy_side_files
from secateurs.train.walk.shards import Streamed
from secateurs.train.walk.state import finished_files

__all__ = ["assemble"]

_CONFIGS = ("config.json", "generation_config.json")


def assemble(source: Streamed, state: str | Path, out: str | Path, most: int = 2 * 2**30) -> None:
    """Write the pruned model as shards with an index, in the layout of the folder it was read from.

    Where that has the model's tensors as they are, finished blocks are linked, or copied where the disk forbids it, from the
    ``state`` folder, and all names are those of the model's state dict. Where transformers converts on loading, blocks are
    turned back and written under the names they were stored by. Everything else is copied from the shards that ``source``
    reads, with the configuration and tokenizer files beside it, in files of ``most`` bytes or of one group of tensors that are
    converted together. No more than one such file is in memory.

    Raises:
        BadInput: ``out`` exists and is not empty.
        CorruptFile: the state folder's list of blocks cannot be read.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{str(out)!r} is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    finished = [Path(state) / file for file in finished_files(state)]
    done = {source.names.get(name, name) for path in finished for name in _names(path)}
    where: dict[str, str] = {}
    if source.layout.plain:
        for path in finished:
            _link(path, folder / f"model-{path.name}")
            where |= dict.fromkeys(_names(path), f"model-{path.name}")
    else:
        for path in finished:
            where |= _write(_turned_back(source, path), folder, f"model-{path.stem}", most)
    where |= _write(_rest(source, done), folder, "model-rest", most)
    for name in _CONFIGS:
        if (source.shards.folder / name).is_file():
            shutil.copyfile(source.shards.folder / name, folder / name)
    copy_side_files(source.shards.folder, folder)
    total = sum((folder / file).stat().st_size for file in set(where.values()))
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_whole(folder / "model.safetensors.index.json", (json.dumps(index, indent=1) + "\n").encode())


def _turned_back(source: Streamed, path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a finished block as they were stored."""
    with require("safetensors", "files").safe_open(str(path), framework="pt") as stored:
        yield from source.layout.store(_Read({source.names[name]: name for name in stored.keys()}, stored))  # noqa: SIM118


class _Read(Mapping[str, Tensor]):
    """Tensors of an open file by other names, each read when it is looked up."""

    def __init__(self, names: Mapping[str, str], stored: Any):
        self._names, self._stored = names, stored

    def __getitem__(self, name: str) -> Tensor:
        value: Tensor = self._stored.get_tensor(self._names[name])
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _rest(source: Streamed, done: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that no finished block has, each once: under the model's names where those are stored as they are."""
    for group in source.layout.groups:
        if not any(name in done for name in group.names):
            names = group.names if source.layout.plain else group.stored
            yield from ((name, source.shards.get(stored)) for name, stored in zip(names, group.stored, strict=True))


def _write(tensors: Iterable[tuple[str, Tensor]], folder: Path, stem: str, most: int) -> dict[str, str]:
    """Write files of at least ``most`` bytes, the last may be smaller; which tensor is in which."""
    where: dict[str, str] = {}
    held: dict[str, Tensor] = {}

    def write() -> None:
        file = f"{stem}-{len(set(where.values())):05d}.safetensors"
        require("safetensors.torch", "files").save_file(held, str(folder / file), metadata={"format": "pt"})
        where.update(dict.fromkeys(held, file))
        held.clear()

    for name, value in tensors:
        held[name] = value.clone() if value.untyped_storage().nbytes() > value.nbytes else value  # parts of one tensor
        if sum(one.nbytes for one in held.values()) >= most:
            write()
    if held:
        write()
    return where


def _names(path: Path) -> tuple[str, ...]:
    with require("safetensors", "files").safe_open(str(path), framework="pt") as stored:
        return tuple(stored.keys())


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)
