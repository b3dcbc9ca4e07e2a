"""The PQ index: how sparse, and so how compressible, a vector is (Diao et al. 2023, Pruning Deep Neural Networks from a
Sparsity Perspective).

``I = 1 - d^(1/q - 1/p) ||w||_p / ||w||_q`` with ``||w||_p = (sum |w|^p)^(1/p)``, also below p = 1, and ``0 < p < q``. It lies
from 0 (all magnitudes alike) to ``1 - d^(1/q - 1/p)`` (a single nonzero), and is the same for ``c w`` and for ``[w, w]``.

``w`` are the weights that are left. With the removed ones counted as zeros the index would tell the sparsity there is already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import BadInput

__all__ = ["PQ", "gini_index", "index_of_rows", "pq_index"]

_PART = 1 << 20  # entries looked at together


@dataclass(frozen=True)
class PQ:
    """The two norms; (0.5, 1) and (1, 2) are the published pairs.

    Raises:
        BadInput: not ``0 < p < q``.
    """

    p: float = 0.5
    q: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.p < self.q < math.inf:
            raise BadInput(f"p={self.p!r}, q={self.q!r}: the PQ index compares two norms with 0 < p < q, as 0.5 and 1")

    def retained(self, d: int, index: float, eta: float = 0.0) -> float:
        """``d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))``: how many of ``d`` entries at least must stay (theorem 2).

        It holds for every r with ``sum of |w|^p over those dropped <= eta * sum over the r kept``.
        """
        return d * float((1 + eta) ** (-self.q / (self.q - self.p)) * (1 - index) ** (self.p * self.q / (self.q - self.p)))

    def removed(self, d: int, index: float, eta: float = 0.0, gamma: float = 1.0, beta: float = 0.9) -> int:
        """``floor(d min(gamma (1 - r/d), beta))`` with ``r`` of :meth:`retained`: how many of ``d`` entries go in a round."""
        if d == 0:
            return 0
        return math.floor(d * min(gamma * (1 - self.retained(d, index, eta) / d), beta))


def pq_index(values: Tensor, p: float = 0.5, q: float = 1.0, zeros: bool = True) -> float:
    """The index of all entries of ``values`` together, in sums over parts of it, so that a large tensor is never copied whole.

    With ``zeros=False`` entries that are zero are taken for removed and do not count.

    >>> round(pq_index(torch.tensor([0.0, 0.0, 3.0, 0.0])), 6)  # 1 - 4^(1 - 2)
    0.75

    Raises:
        BadInput: not ``0 < p < q``.
    """
    pq, flat = PQ(p, q), values.detach().reshape(-1)
    d = len(flat) if zeros else int(torch.count_nonzero(flat))
    top = max((float(part.abs().max()) for part in flat.split(_PART)), default=0.0) if d else 0.0
    if not top:
        return 0.0
    sums = torch.zeros(2, dtype=torch.float64)
    for part in flat.split(_PART):
        sizes = part.abs().double() / top
        sums += torch.stack([(sizes**pq.p).sum(), (sizes**pq.q).sum()]).cpu()
    low, high = (sums / d).tolist()
    return max(0.0, 1 - low ** (1 / pq.p) / high ** (1 / pq.q))


def index_of_rows(values: Tensor, kept: Tensor, pq: PQ) -> Tensor:
    """The index of every row of ``values`` ``[rows, entries]`` over the entries ``kept``, float64 ``[rows]``.

    Rows of no entry, of one, and of zeros alone have the index 0. Sums are taken in float64 over magnitudes divided by the
    row's largest, so no power overflows.
    """
    sizes = values.detach().double().abs() * kept
    top = sizes.amax(1, keepdim=True) if sizes.shape[1] else sizes.new_zeros(len(sizes), 1)
    sizes = sizes / top.clamp(min=torch.finfo(torch.float64).tiny)
    d = kept.sum(1).double().clamp(min=1)
    p, q = pq.p, pq.q
    means = [(sizes**power).sum(1) / d for power in (p, q)]  # 0 ** p is 0: what is not kept adds nothing
    ratio = means[0] ** (1 / p) / means[1].clamp(min=torch.finfo(torch.float64).tiny) ** (1 / q)
    return torch.where(top[:, 0] > 0, (1 - ratio).clamp(min=0), torch.zeros_like(ratio))


def gini_index(values: Tensor) -> float:
    """``1 - 2 sum_i |w|_(i) / ||w||_1 (d - i + 1/2) / d`` over magnitudes in rising order: another measure of sparsity.

    0 for magnitudes all alike, ``1 - 1/d`` for a single nonzero (Hurley & Rickard 2009, Comparing Measures of Sparsity).
    """
    sizes = values.detach().double().abs().reshape(-1).sort().values
    d, whole = len(sizes), float(sizes.sum())
    if not whole:
        return 0.0
    behind = torch.arange(d, 0, -1, dtype=torch.float64, device=sizes.device) - 0.5
    return 1 - 2 * float((sizes * behind).sum()) / (whole * d)
