"""Quantisation grids: the values a rounded weight may take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import BadInput

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid:
    """Per output row, ``levels + 1`` evenly spaced values ``step * (code - zero)``, code 0 to ``levels``, 0 among them.

    ``step`` and ``zero`` (a whole number) are ``[out]``.
    """

    step: Tensor
    zero: Tensor
    levels: int

    @classmethod
    def fit(cls, weight: Tensor, bits: int) -> Grid:
        """Min-max over every row of ``weight`` ``[out, in]``, the range widened to contain 0 (asymmetric).

        Raises:
            BadInput: ``bits`` is not 4 or 8.
        """
        if bits not in (4, 8) or isinstance(bits, bool):
            raise BadInput(f"bits={bits!r}: weights are rounded to 4 or 8 bits")
        levels = 2**bits - 1
        low, high = weight.amin(1).clamp(max=0), weight.amax(1).clamp(min=0)
        step = (high - low) / levels
        step = torch.where(step > 0, step, torch.ones_like(step))  # a row of zeros, or one too narrow for its dtype
        return cls(step, torch.round(-low / step), levels)

    def codes(self, values: Tensor) -> Tensor:
        """The nearest codes of ``values`` ``[..., out]``, as floats; ties go to the even one."""
        return torch.round(values / self.step).add_(self.zero).clamp_(0, self.levels)

    def round(self, values: Tensor) -> Tensor:
        """The nearest values of the grid to ``values`` ``[..., out]``."""
        return self.codes(values).sub_(self.zero).mul_(self.step)
