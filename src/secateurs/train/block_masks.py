"""The masks of finished blocks: bits in memory and, where a walk has a folder, in a file per block."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.core.masks import Packed, pack_bits, unpack_bits
from secateurs.errors import CorruptFile
from secateurs.extras import require
from secateurs.files import write_whole

__all__ = ["BlockMasks"]


class BlockMasks:
    """Masks by weight name, gathered block by block.

    Args:
        state: the folder of the walk, if it has one.
    """

    def __init__(self, state: Path | None):
        self._state = state
        self._bits: dict[str, Tensor] = {}

    def keep(self, index: int, masks: Mapping[str, Tensor]) -> str:
        """Take the masks of a block, and write them beside what the walk keeps of it; their checksum."""
        bits = {name: pack_bits(mask) for name, mask in masks.items()}
        self._bits |= bits
        if self._state is None:
            return ""
        content: bytes = require("safetensors.torch", "files").save(bits)
        write_whole(self._file(self._state, index), content)
        return hashlib.sha256(content).hexdigest()

    def take_over(self, index: int, facts: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Read the masks of a block that was finished in an earlier run; :class:`CorruptFile` if they are not those."""
        assert self._state is not None
        path = self._file(self._state, index)
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != facts["masks"]:
            raise CorruptFile(f"{str(path)!r} is missing or altered: remove {str(self._state)!r} and start again")
        bits = require("safetensors.torch", "files").load(content)
        for name in facts["layers"]:
            unpack_bits(bits[name], shapes[name])  # which checks them
            self._bits[name] = bits[name]

    def packed(self, shapes: Mapping[str, tuple[int, ...]]) -> Packed:
        """All of them, in the order of ``shapes``."""
        return Packed({name: self._bits[name] for name in shapes if name in self._bits}, shapes)

    @staticmethod
    def _file(folder: Path, index: int) -> Path:
        return folder / f"masks-{index:05d}.safetensors"
