"""Masks by qualified parameter name: boolean tensors, True = kept, with exact counts and a bit-packed form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import BadInput, CorruptFile

__all__ = ["Masks", "Packed", "pack_bits", "unpack_bits"]


def pack_bits(mask: Tensor) -> Tensor:
    """``mask`` (bool, any shape) as ``ceil(numel / 8)`` bytes: row-major, least significant bit first, tail bits zero."""
    flat = mask.detach().to("cpu", torch.bool).contiguous().view(-1).numpy()
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack_bits(packed: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """The inverse of :func:`pack_bits`: a boolean tensor of ``shape`` on the CPU.

    Raises:
        CorruptFile: the number of bytes does not fit ``shape``, or a bit behind the last entry is set.
    """
    n = int(np.prod(tuple(shape), dtype=np.int64))
    if packed.dtype != torch.uint8 or packed.numel() != (n + 7) // 8:
        raise CorruptFile(f"a mask of shape {tuple(shape)} takes {(n + 7) // 8} bytes, found {packed.numel()} of "
                          f"{packed.dtype}")  # fmt: skip
    bits = np.unpackbits(packed.detach().cpu().contiguous().numpy(), bitorder="little")
    if bits[n:].any():
        raise CorruptFile(f"a mask of shape {tuple(shape)} has bits set behind its last entry")
    return torch.from_numpy(bits[:n].astype(np.bool_)).view(tuple(shape))


class Masks(Mapping[str, Tensor]):
    """Boolean masks by qualified parameter name, in the order of the model. True = kept."""

    def __init__(self, masks: Mapping[str, Tensor]):
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise BadInput(f"the mask of {name!r} has dtype {mask.dtype}; masks are boolean, True = kept")
        self._masks = dict(masks)

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one mask."""
        return tuple(self._masks[name].shape)

    def bits(self, name: str) -> Tensor:
        """One mask as :func:`pack_bits` gives it."""
        return pack_bits(self[name])

    def kept(self) -> dict[str, int]:
        """Entries kept, by name."""
        return {name: int(torch.count_nonzero(mask)) for name, mask in self.items()}

    @property
    def size(self) -> int:
        """Entries in all masks together."""
        return sum(math.prod(self.shape(name)) for name in self)

    @property
    def sparsity(self) -> float:
        """Share of entries removed over all masks; 0.0 for none."""
        return (self.size - sum(self.kept().values())) / self.size if self.size else 0.0

    def report(self) -> list[dict[str, object]]:
        """One row per tensor (name, shape, size, kept, removed, sparsity) and a last row named ``total``."""
        rows: list[dict[str, object]] = []
        for name, kept in self.kept().items():
            n = math.prod(self.shape(name))
            rows.append({"name": name, "shape": list(self.shape(name)), "size": n, "kept": kept,
                         "removed": n - kept, "sparsity": (n - kept) / n if n else 0.0})  # fmt: skip
        kept = sum(self.kept().values())
        rows.append({"name": "total", "shape": None, "size": self.size, "kept": kept,
                     "removed": self.size - kept, "sparsity": self.sparsity})  # fmt: skip
        return rows

    def state_dict(self) -> dict[str, dict[str, object]]:
        """One bit per entry: ``{name: {"bits": uint8 tensor, "shape": list}}``; loads with ``weights_only=True``."""
        return {name: {"bits": self.bits(name), "shape": list(self.shape(name))} for name in self}

    @staticmethod
    def from_state_dict(state: Mapping[str, Mapping[str, object]]) -> Masks:
        """The masks of :meth:`state_dict`, on the CPU."""
        return Masks({n: unpack_bits(entry["bits"], tuple(entry["shape"])) for n, entry in state.items()})  # type: ignore[arg-type]


class Packed(Masks):
    """Masks held as bits, an eighth of what booleans take; each is unpacked when it is looked up, and not kept.

    Args:
        bits: by name, as :func:`pack_bits` gives them.
        shapes: of the masks.
    """

    def __init__(self, bits: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]):
        self._bits, self._shapes = dict(bits), {name: tuple(shapes[name]) for name in bits}

    def __getitem__(self, name: str) -> Tensor:
        return unpack_bits(self._bits[name], self._shapes[name])

    def __contains__(self, name: object) -> bool:
        return name in self._bits

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one mask."""
        return self._shapes[name]

    def bits(self, name: str) -> Tensor:
        """One mask as :func:`pack_bits` gives it."""
        return self._bits[name]

    def kept(self) -> dict[str, int]:
        """Entries kept, by name."""
        return dict(self._kept)

    def only(self, names: Iterable[str]) -> Packed:
        """The masks of ``names``, in their order."""
        return Packed({name: self._bits[name] for name in names}, self._shapes)

    @cached_property
    def _kept(self) -> dict[str, int]:
        return {name: int(torch.count_nonzero(mask)) for name, mask in self.items()}
