"""Unequal rows: remove the smallest scores of every row until they add up to the same share of the row's total."""

from __future__ import annotations

import torch
from torch import Tensor

from secateurs.core.select import check_finite, keep_mask

__all__ = ["cumulative_shares", "keep_by_share"]


def cumulative_shares(scores: Tensor) -> Tensor:
    """For ``scores`` ``[rows, units]``: the sum of a row's scores up to and with this one, as a share of the row's total.

    float64, 1 for the highest of a row. Of equal scores the later go first. Scores below zero (weights that are zero already)
    add nothing and stay as they are, lowest of all; a row without a score above zero has shares 0.
    """
    backwards = scores.flip(1).double()
    order = torch.argsort(backwards, dim=1, stable=True)
    sums = backwards.gather(1, order).clamp_(min=0).cumsum(1)
    shares = torch.where(sums[:, -1:] > 0, sums / sums[:, -1:], 0.0)
    shares = torch.empty_like(shares).scatter_(1, order, shares).flip(1)
    return torch.where(scores < 0, scores.double(), shares)


def keep_by_share(scores: Tensor, remove: int, name: str = "scores") -> tuple[Tensor, float]:
    """The mask of ``scores`` ``[rows, units]`` (True = kept) with exactly ``remove`` False entries, and the share alpha.

    Every row loses its smallest scores until their sum reaches alpha of its total: the variant of Wanda (Sun et al. 2023)
    whose rows lose unequal numbers. The authors find one alpha per matrix by bisection, to within 0.001 of the sparsity. It
    is the largest cumulative share removed, so here all of these are ranked and the count is exact; of equal shares the
    entry with the lower flat index stays.

    Raises:
        BadInput: ``remove`` is not between 0 and the number of entries.
        NotFinite: a score is NaN or infinite.
    """
    check_finite(scores, name)
    shares = cumulative_shares(scores)
    kept = keep_mask(shares, remove, name)
    return kept, max(0.0, float(shares[~kept].max())) if remove else 0.0
