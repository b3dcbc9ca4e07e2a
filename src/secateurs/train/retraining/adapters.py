"""Adapters of pruned weights (Zimmer et al. 2023, "PERP", after Hu et al. 2022, "LoRA").

An adapter is a parametrisation of a weight W (out x in) whose mask is M: the layer computes with ``W + D``, of which only the
factors B (out x r) and A (r x in) train. Stacked matrices (experts, the groups of a convolution) have factors each; a
convolution's columns are its input channels and taps. ``c = alpha / r``.

=============  ==================  ======================  ==========================================================
adapter        computes with       merges to               start
=============  ==================  ======================  ==========================================================
``lora``       ``W + c BA``        ``W + c BA``, if dense  A uniform within ``1 / sqrt(in)``, B zero
``lora-prune`` ``W + c BA``        ``W + c (BA * M)``      as ``lora``; the model changes when it is merged
``mask-lora``  ``W + c (BA * M)``  the same                as ``lora``
``scale-lora`` ``W * (BA)``        the same                all entries of A and B ``1 / sqrt(r)``, so that ``BA = 1``
=============  ==================  ======================  ==========================================================
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from secateurs.core.structures import PerRow
from secateurs.models import Weight, matrices

__all__ = ["ADAPTERS", "Adapter", "Lora", "LoraPrune", "MaskLora", "Masked", "ScaleLora"]

_ROWS = PerRow()
_NARROW = (torch.bfloat16, torch.float16)


def trained_dtype(dtype: torch.dtype) -> torch.dtype:
    """What trains for a parameter of ``dtype``: updates of 16-bit numbers are lost below their resolution."""
    return torch.float32 if dtype in _NARROW else dtype


class Adapter(nn.Module):
    """A low-rank change of ``weight``; a parametrisation, called with the weight itself.

    Args:
        weight: of any kind of layer that multiplies by matrices.
        mask: bool of the weight's shape, True = kept; None for a dense weight.
        rank: r.
        alpha: c times r.
        dropout: share of the inputs of the change that are zeroed while training.
        generator: draws the factors, on the CPU.
    """

    exact: ClassVar[bool] = True
    """Whether the merged weight computes what the adapted one did."""
    mask: Tensor | None

    def __init__(self, weight: Weight, mask: Tensor | None, rank: int, alpha: float, dropout: float,
                 generator: torch.Generator):  # fmt: skip
        super().__init__()
        parts, rows, columns = matrices(weight).shape
        self.rank, self.scale, self.dropout = rank, alpha / rank, dropout
        self._shape, self._layout = torch.Size(weight.shape), weight.layout
        device, dtype = weight.parameter.device, trained_dtype(weight.parameter.dtype)
        self.register_buffer("mask", None if mask is None else mask.to(device), persistent=False)
        a, b = self.start(parts, rows, columns, generator)
        self.a, self.b = nn.Parameter(a.to(device, dtype)), nn.Parameter(b.to(device, dtype))

    def start(self, parts: int, rows: int, columns: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The factors ``[parts, r, columns]`` and ``[parts, rows, r]`` before training, in float64."""
        uniform = torch.rand(parts, self.rank, columns, generator=generator, dtype=torch.float64)
        return (2 * uniform - 1) / columns**0.5, uniform.new_zeros(parts, rows, self.rank)

    def change(self, weight: Tensor) -> Tensor:
        """D, in the dtype that trains."""
        return self.scale * self.product()

    def merged(self, weight: Tensor) -> Tensor:
        """The weight that replaces ``weight`` in the end."""
        return self._changed(weight, self.change(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer computes with; under dropout ``W`` alone, and the layer adds what D gives."""
        if self.dropping:
            return weight
        with torch.autocast(weight.device.type, enabled=False):
            return self._changed(weight, self.change(weight))

    @property
    def dropping(self) -> bool:
        """Whether the change sees other inputs than the weight."""
        return self.training and self.dropout > 0

    def product(self) -> Tensor:
        """BA, of the weight's shape."""
        return self._placed(self.b @ self.a)

    def _placed(self, stacked: Tensor) -> Tensor:
        return _ROWS.to_mask(stacked.reshape(-1, stacked.shape[-1]), self._shape, self._layout)

    def _masked(self, change: Tensor) -> Tensor:
        return change if self.mask is None else change * self.mask

    @staticmethod
    def _changed(weight: Tensor, change: Tensor) -> Tensor:
        return (weight.to(change.dtype) + change).to(weight.dtype)


class Lora(Adapter):
    """``W + c BA``, which has no zeros: it merges into dense weights only."""


class LoraPrune(Adapter):
    """Trained as :class:`Lora`, merged under the mask: the output changes by ``-c (BA * (1 - M)) x``."""

    exact = False

    def merged(self, weight: Tensor) -> Tensor:
        """``W + c (BA * M)``."""
        return self._changed(weight, self._masked(self.change(weight)))


class MaskLora(Adapter):
    """``W + c (BA * M)`` while training and afterwards."""

    def change(self, weight: Tensor) -> Tensor:
        """``c (BA * M)``."""
        return self._masked(super().change(weight))


class ScaleLora(Adapter):
    """``W * (BA)``, the very weight at the start.

    In exact arithmetic ``BA = 1`` at the start, of rounded factors it is not. So it is computed as
    ``1 + (B - B0) A + B0 (A - A0)``, which is the same with ``B0 A0 = 1`` and is 1 to the bit until a factor has changed.
    """

    def start(self, parts: int, rows: int, columns: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """All ``1 / sqrt(r)``."""
        value = self.rank**-0.5
        return (torch.full((parts, self.rank, columns), value, dtype=torch.float64),
                torch.full((parts, rows, self.rank), value, dtype=torch.float64))  # fmt: skip

    def change(self, weight: Tensor) -> Tensor:
        """``W * (BA - 1)``."""
        return self._masked(weight.to(self.a.dtype) * self._placed(self._less_one()))

    def product(self) -> Tensor:
        """BA, exactly 1 at the start."""
        return self._placed(1 + self._less_one())

    def _less_one(self) -> Tensor:
        first = torch.tensor(self.rank**-0.5, dtype=self.a.dtype, device=self.a.device)
        return (self.b - first) @ self.a + first * (self.a - first).sum(1, keepdim=True)


class Masked(nn.Module):
    """A parametrisation by a trained copy of the parameter: wider than 16 bits, and zero where ``mask`` (if any) says so."""

    mask: Tensor | None

    def __init__(self, parameter: Tensor, mask: Tensor | None):
        super().__init__()
        self.register_buffer("mask", None if mask is None else mask.to(parameter.device), persistent=False)
        self.value = nn.Parameter(parameter.detach().to(trained_dtype(parameter.dtype), copy=True))

    def forward(self, parameter: Tensor) -> Tensor:
        """The copy, in the parameter's own dtype."""
        value = self.value if self.mask is None else self.value.masked_fill(~self.mask, 0)
        return value.to(parameter.dtype)

    merged = forward


#: Adapters by name.
ADAPTERS: dict[str, type[Adapter]] = {
    "mask-lora": MaskLora,
    "scale-lora": ScaleLora,
    "lora-prune": LoraPrune,
    "lora": Lora,
}
