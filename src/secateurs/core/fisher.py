"""Optimal brain surgery by an empirical Fisher matrix: what it is estimated from, and what its inverse says of weights.

With the gradients ``g_1 .. g_N`` the dampened matrix is ``F = lambda I + (1/N) sum of g_n g_n^T``, and a network whose weights
``w`` were trained to a minimum has a loss near it of ``1/2 dw^T F dw``. Le Cun et al. 1990 keep F's diagonal (optimal brain
damage); Hassibi & Stork 1993 invert all of it (optimal brain surgeon); Singh & Alistarh 2020 (WoodFisher) invert blocks of it,
and Frantar et al. 2021 (M-FAC) keep the inverse as factors. All weights lie here in one vector, tensor after tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateurs.core.obs_factor import NotPositiveDefinite
from secateurs.errors import BadInput

__all__ = ["Estimate", "Inverse", "check_positive", "exact_update", "obs_statistic", "ranges", "summed_update"]


@dataclass(frozen=True)
class Estimate:
    """What an empirical Fisher matrix is estimated from, and which entries of it count.

    Attributes:
        gradients: N, the number of outer products.
        samples: m, the examples of whose mean loss each gradient is taken. A mean of m is one gradient, not m of them.
        block: c, how many consecutive entries of a tensor have a block of the matrix, the others being taken for zero; 1 is
            the diagonal, and 0 the whole matrix of all tensors together.
        damping: lambda, added to the diagonal. Without it F is singular where N is less than c.

    Raises:
        BadInput: a number that cannot be.
    """

    gradients: int = 400
    samples: int = 1
    block: int = 2000
    damping: float = 1e-5

    def __post_init__(self) -> None:
        for name, least in (("gradients", 1), ("samples", 1), ("block", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BadInput(f"{name}={value!r}: of a Fisher matrix this is a whole number, {least} or more")
        if isinstance(self.damping, bool) or not isinstance(self.damping, (int, float)) or not 0 < self.damping < math.inf:
            raise BadInput(f"damping={self.damping!r}: what is added to the diagonal is a number above 0, so that there is an "
                           "inverse; 1e-5 is the published one")  # fmt: skip


class Inverse(Protocol):
    """The inverse of a Fisher matrix of P weights, in whichever form."""

    @property
    def diagonal(self) -> Tensor:
        """``[P]``, positive."""

    def product(self, x: Tensor) -> Tensor:
        """``F^-1 x`` for ``x`` ``[P]``."""

    def pinned(self, weight: Tensor, removed: Tensor) -> Tensor:
        """``-F^-1[:, Q] (F^-1[Q, Q])^-1 w_Q`` for ``weight`` and boolean ``removed`` ``[P]``, Q being where it is True."""


def obs_statistic(weight: Tensor, diagonal: Tensor) -> Tensor:
    """``w^2 / (2 [F^-1]_qq)``: the loss that removing one weight costs when the others make up for it."""
    return weight.square() / (2 * diagonal)


def summed_update(weight: Tensor, removed: Tensor, inverse: Inverse) -> Tensor:
    """``-F^-1 (w / diag(F^-1))`` over ``removed``: what each removal alone would change, added up.

    The published compensation. It is the best one for a single weight; for many it leaves out what they have to do with each
    other, so what is removed is not quite cancelled, and has to be set to zero.
    """
    return -inverse.product(torch.where(removed, weight / inverse.diagonal, torch.zeros_like(weight)))


def exact_update(weight: Tensor, removed: Tensor, inverse: Inverse) -> Tensor:
    """What minimises ``dw^T F dw`` with ``dw = -w`` over ``removed``."""
    return torch.where(removed, -weight, inverse.pinned(weight, removed))


def ranges(sizes: Sequence[int], block: int) -> list[tuple[int, int]]:
    """Where the blocks lie in the vector of all weights: ``(start, stop)``, in no two tensors unless ``block`` is 0.

    >>> ranges([5, 3], 2)
    [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]
    """
    if not block:
        return [(0, sum(sizes))]
    edges = itertools.pairwise(itertools.accumulate(sizes, initial=0))
    return [(at, min(at + block, stop)) for start, stop in edges for at in range(start, stop, block)]


def check_positive(diagonal: Tensor, damping: float) -> None:
    """Raise :class:`NotPositiveDefinite` where rounding has left nothing of a diagonal that is positive."""
    if not bool((diagonal > 0).all()):
        raise NotPositiveDefinite(f"the inverse Fisher matrix has entries on its diagonal that are not positive: gradients are "
                                  f"so large that damping={damping:g} is lost beside them; give a larger damping")  # fmt: skip
