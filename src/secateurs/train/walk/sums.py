"""Sums of gradients on disk, a file per weight: as large as the weights in float32, they wait there until they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.models import Weight
from secateurs.statistics import GradientSums
from secateurs.train.walk.state import digest

__all__ = ["SavedSums"]

VERSION, LIST = 1, "gradients.json"


class SavedSums:
    """The folder of the sums, new or to be continued.

    Args:
        folder: created where it does not exist.
        identity: what the sums depend on besides the model, as JSON-able data.

    Raises:
        BadInput: the folder belongs to another run, or holds something else.
        CorruptFile: its list cannot be read.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]):
        self.folder = Path(folder)
        self._identity = json.loads(json.dumps(identity))
        self._finished: dict[str, dict[str, str]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / LIST).exists():
            self._read()
        elif any(self.folder.iterdir()):
            raise BadInput(f"{str(folder)!r} holds files, but no {LIST}: give a new or an empty folder for the gradients")

    def __contains__(self, name: object) -> bool:
        return name in self._finished

    def save(self, weight: Weight, sums: GradientSums, want: str) -> None:
        """Keep the sums of a weight, which has its dense values.

        Raises:
            BadInput: no gradient has reached the weight.
        """
        if not sums.samples:
            raise BadInput(f"the loss does not depend on {weight.name!r}, so it has no gradient; exclude it, or give batches "
                           "that use it")  # fmt: skip
        file = f"gradients-{len(self._finished):05d}.safetensors"
        content = require("safetensors.torch", "files").save({want: getattr(sums, want).contiguous()})
        write_whole(self.folder / file, content)
        self._finished[weight.name] = {"file": file, "sha256": hashlib.sha256(content).hexdigest(),
                                       "dense": digest([weight.parameter])}  # fmt: skip
        data = {"format": "secateurs-gradients", "version": VERSION, "identity": self._identity, "finished": self._finished}
        write_whole(self.folder / LIST, (json.dumps(data, indent=1) + "\n").encode())

    def load(self, weight: Weight) -> Tensor:
        """The sums of a weight, which still has its dense values.

        Raises:
            BadInput: it has others than when the sums were taken.
            CorruptFile: the file is not what was written.
        """
        entry = self._finished[weight.name]
        path = self.folder / entry["file"]
        if not path.is_file() or _checksum(path) != entry["sha256"]:
            raise CorruptFile(f"{str(path)!r} is missing, truncated or altered: remove {str(self.folder)!r} and start again")
        if digest([weight.parameter]) != entry["dense"]:
            raise BadInput(f"{str(self.folder)!r} is of another model: {weight.name!r} has other values than when its "
                           "gradients were summed; remove it and start again")  # fmt: skip
        found: Tensor = next(iter(require("safetensors.torch", "files").load_file(path).values()))  # mapped, not held
        return found

    def _read(self) -> None:
        path = self.folder / LIST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version, identity, finished = data["version"], dict(data["identity"]), dict(data["finished"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise CorruptFile(f"{str(path)!r} cannot be read: {error}") from error
        if version != VERSION:
            raise CorruptFile(f"the gradients in {str(self.folder)!r} have version {version!r}; this library reads {VERSION}")
        differ = [key for key in {**self._identity, **identity} if self._identity.get(key) != identity.get(key)]
        if differ:
            raise BadInput(f"{str(self.folder)!r} is of another run, which differs in {', '.join(differ)}: give the same "
                           "settings and calibration, or remove it")  # fmt: skip
        self._finished = finished


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
