"""Ways to store one tensor. A later version adds a class and a table entry; files that exist stay readable as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from secateurs.core.masks import pack_bits, unpack_bits
from secateurs.errors import CorruptFile

__all__ = ["ENCODINGS", "Bitmask", "Dense", "Encoding", "encode", "minus_zeros", "nonzero_bits"]

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Encoding(Protocol):
    """One way to store a tensor, as parts named by what is appended to the tensor's name. Must lose no bit."""

    name: ClassVar[str]
    """What the file calls it."""
    parts: ClassVar[tuple[str, ...]]
    """The suffixes of its parts."""

    def encode(self, tensor: Tensor) -> dict[str, Tensor] | None:
        """The parts by suffix for a contiguous CPU tensor, or None if this encoding does not store such tensors."""
        ...

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor again, bit for bit.

        Raises:
            CorruptFile: the parts do not fit ``shape`` and ``dtype`` or each other.
        """
        ...


class Dense:
    """Every entry, under the tensor's own name."""

    name: ClassVar[str] = "dense"
    parts: ClassVar[tuple[str, ...]] = ("",)

    def encode(self, tensor: Tensor) -> dict[str, Tensor] | None:
        """The tensor itself."""
        return {"": tensor}

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor itself, if it is of ``shape`` and ``dtype``."""
        tensor = parts[""]
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise CorruptFile(f"found {tensor.dtype} {tuple(tensor.shape)}, promised {dtype} {shape}")
        return tensor


class Bitmask:
    """One bit per entry (row-major, least significant first), then the values whose bit is set, in the same order.

    A value is stored when any of its bits is set, so minus zero is stored and NaN and infinity are ordinary values.
    """

    name: ClassVar[str] = "bitmask"
    parts: ClassVar[tuple[str, ...]] = (".mask", ".values")

    def encode(self, tensor: Tensor) -> dict[str, Tensor] | None:
        """Mask and values of a floating-point tensor; None for any other and for an empty one."""
        if not tensor.is_floating_point() or not tensor.numel():
            return None
        bits = _bits(tensor)
        kept = bits != 0
        return {".mask": pack_bits(kept), ".values": bits[kept].view(tensor.dtype)}

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Values put back where the mask says, zeros elsewhere."""
        values, kept = parts[".values"], unpack_bits(parts[".mask"], shape).view(-1)
        count = int(torch.count_nonzero(kept))
        if values.dtype != dtype or tuple(values.shape) != (count,):
            raise CorruptFile(f"found {tuple(values.shape)} values of {values.dtype}, its mask keeps {count} of {dtype}")
        bits = torch.zeros(kept.numel(), dtype=_BITS[dtype.itemsize])
        bits[kept] = _bits(values)
        return bits.view(dtype).view(shape)


ENCODINGS: dict[str, Encoding] = {encoding.name: encoding for encoding in (Dense(), Bitmask())}


def encode(name: str, tensor: Tensor, taken: Collection[str]) -> tuple[Encoding, dict[str, Tensor]]:
    """The encoding with the fewest bytes and its parts by suffix; of equally small ones the first in the table.

    An encoding that would need a name in ``taken`` (the model's other tensors) is passed over.
    """
    best: tuple[Encoding, dict[str, Tensor]] | None = None
    for encoding in ENCODINGS.values():
        if any(suffix and name + suffix in taken for suffix in encoding.parts):
            continue
        parts = encoding.encode(tensor)
        if parts is not None and (best is None or _bytes(parts) < _bytes(best[1])):
            best = (encoding, parts)
    assert best is not None  # dense takes every tensor
    return best


def nonzero_bits(tensor: Tensor) -> int:
    """Entries with any bit set: for floating-point tensors minus zero is one of them."""
    return int(torch.count_nonzero(_bits(tensor)))


def minus_zeros(tensor: Tensor) -> int:
    """Entries of which only the sign bit is set; 0 for a tensor that is not floating point."""
    if not tensor.is_floating_point():
        return 0
    sign = 1 << 7 if tensor.dtype.itemsize == 1 else -1 << (8 * tensor.dtype.itemsize - 1)
    return int(torch.count_nonzero(_bits(tensor) == sign))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(-1).view(_BITS[tensor.dtype.itemsize])


def _bytes(parts: Mapping[str, Tensor]) -> int:
    return sum(part.nbytes for part in parts.values())
