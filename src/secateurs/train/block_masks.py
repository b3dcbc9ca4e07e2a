"""The masks of finished blocks: bits in memory and, where a walk has a folder, in a file per block."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.core.masks import Packed, pack_bits, unpack_bits
from secateurs.errors import CorruptFile
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.train.walk import Ranks

__all__ = ["BlockMasks"]


class BlockMasks:
    """Masks by weight name, gathered block by block.

    Args:
        state: the folder of the walk, if it has one.
        ranks: the processes of the walk; the first of them reads and writes the folder.
    """

    def __init__(self, state: Path | None, ranks: Ranks | None = None):
        self._state, self._ranks = state, ranks or Ranks()
        self._bits: dict[str, Tensor] = {}

    def keep(self, index: int, masks: Mapping[str, Tensor]) -> str:
        """Take the masks of a block from all processes, and write them beside what the walk keeps of it; their checksum."""
        bits = self._ranks.union({name: pack_bits(mask) for name, mask in masks.items()})
        self._bits |= bits
        if self._state is None or not self._ranks.first:
            return ""
        content: bytes = require("safetensors.torch", "files").save(bits)
        write_whole(self._file(self._state, index), content)
        if sys.platform != "win32":  # where a mapped file cannot be removed
            self._bits |= require("safetensors.torch", "files").load_file(self._file(self._state, index))  # no memory of ours
        return hashlib.sha256(content).hexdigest()

    def take_over(self, index: int, facts: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Read the masks of a block that was finished in an earlier run; :class:`CorruptFile` if they are not those."""
        self._bits |= self._ranks.union(self._read(index, facts, shapes) if self._ranks.first else {})

    def _read(self, index: int, facts: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        assert self._state is not None
        path = self._file(self._state, index)
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != facts["masks"]:
            raise CorruptFile(f"{str(path)!r} is missing or altered: remove {str(self._state)!r} and start again")
        bits: dict[str, Tensor] = require("safetensors.torch", "files").load(content)
        for name in facts["layers"]:
            unpack_bits(bits[name], shapes[name])  # which checks them
        return {name: bits[name] for name in facts["layers"]}

    def packed(self, shapes: Mapping[str, tuple[int, ...]]) -> Packed:
        """All of them, in the order of ``shapes``."""
        return Packed({name: self._bits[name] for name in shapes if name in self._bits}, shapes)

    @staticmethod
    def _file(folder: Path, index: int) -> Path:
        return folder / f"masks-{index:05d}.safetensors"
