"""Regrowth: weights of a sparse layer are exchanged for dead ones, as many as go (SET, RigL, GraNet)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.core.select import check_finite, cut_mask, find_cut, keep_mask

__all__ = ["Regrowth", "exchange"]


@dataclass(frozen=True)
class Regrowth:
    """When a layer's weights are exchanged, how many, and by what the new ones are chosen.

    Attributes:
        share: of the layer's kept weights that are exchanged at a step.
        every: steps between exchanges, which come at its multiples.
        begin: the first step with one, at the earliest.
        end: the last step with one, at the latest.
        by: ``"gradient"``, the largest ``|dL/dw|`` of the step's batch among the dead ones, or ``"random"``.
        round_up: whether part of a weight counts as one; it is left out otherwise.
        replaces_step: the optimizer does not step where weights are exchanged.
    """

    share: Callable[[int], float]
    every: int
    end: int
    begin: int = 1
    by: str = "gradient"
    round_up: bool = False
    replaces_step: bool = False

    def due(self, step: int) -> bool:
        """Whether weights are exchanged at ``step``."""
        return self.begin <= step <= self.end and step % self.every == 0

    def count(self, step: int, kept: int) -> int:
        """How many of ``kept`` weights are exchanged at ``step``."""
        wanted = self.share(step) * kept
        return min(math.ceil(wanted) if self.round_up else math.floor(wanted), kept)


def exchange(name: str, weight: Tensor, mask: Tensor, growth: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Drop the ``count`` smallest kept ``|w|``, then grow the ``count`` of highest ``growth`` among all that are dead by then.

    What was dropped may be grown again at once. All tensors have the weight's shape, and ``growth`` is nowhere negative; of
    equals the lower index stays, and is grown.

    Returns:
        The new mask, which keeps as many as ``mask``, and which of them are grown (True).

    Raises:
        NotFinite: a kept weight or a dead one's growth is NaN or infinite; ``name`` is quoted.
    """
    alive = weight[mask].abs()
    check_finite(alive, name)
    # -1 is below everything: quicker than to scatter what is found among the alive, or to gather the many dead
    sizes = torch.where(mask, weight.abs(), -1).contiguous()
    staying = cut_mask(sizes, find_cut(lambda: [alive], count))
    grown = keep_mask(torch.where(staying, -1, growth), mask.numel() - count, name)
    return staying | grown, grown
