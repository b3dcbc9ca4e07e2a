"""The inverse of a Fisher matrix as N vectors, for blocks of any length: Frantar et al. 2021 (M-FAC), section 3.

With ``h_i = F_{i-1}^-1 g_i`` and ``c_i = N + g_i . h_i``, ``F_i^-1 = F_{i-1}^-1 - h_i h_i^T / c_i`` (Sherman and Morrison), and
``F^-1 x = x / lambda - sum of h_i (h_i . x) / c_i``. The vectors ``v_i = h_i / sqrt(c_i)`` are the rows of
``L^-1 G / lambda``, where G has the gradients as its rows and ``L L^T = N I + G G^T / lambda`` is a Cholesky factorisation: the
recursion in matrix products. They take the place of the gradients in memory, a few columns at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from secateurs.core.fisher import Estimate, check_positive, ranges
from secateurs.core.obs_factor import NotPositiveDefinite

__all__ = ["Factors", "GradientRows"]

_ENTRIES = 1 << 18  # of the gradients that are in float64 at a time: 2 MB


class GradientRows:
    """Keeps the gradients: 4 N P bytes for N of P weights in float32."""

    def __init__(self, sizes: Sequence[int], estimate: Estimate, dtype: torch.dtype, device: torch.device):
        self._blocks, self._damping, self._seen = ranges(sizes, estimate.block), estimate.damping, 0
        self._rows = torch.empty(estimate.gradients, sum(sizes), dtype=dtype, device=device)

    def add(self, gradient: Tensor) -> None:
        """One more of them, ``[P]``."""
        self._rows[self._seen] = gradient
        self._seen += 1

    def inverse(self) -> Factors:
        """Of what was added; nothing can be added afterwards, since the gradients are overwritten."""
        rows = self._rows[: self._seen]
        diagonal = torch.empty_like(rows[0])
        for start, stop in self._blocks:
            _factorise(rows[:, start:stop], diagonal[start:stop], self._damping)
        check_positive(diagonal, self._damping)
        return Factors(rows, diagonal, self._blocks, self._damping)


class Factors:
    """The inverse: ``rows`` ``[N, P]`` are the vectors v of every block, ``diagonal`` ``[P]`` its diagonal."""

    def __init__(self, rows: Tensor, diagonal: Tensor, blocks: Sequence[tuple[int, int]], damping: float):
        self.rows, self.diagonal, self._blocks, self._damping = rows, diagonal, list(blocks), damping

    def product(self, x: Tensor) -> Tensor:
        """``F^-1 x``, in the dtype of the gradients."""
        found = x.to(self.rows.dtype) / self._damping
        for start, stop in self._blocks:
            rows = self.rows[:, start:stop]
            found[start:stop] -= rows.T @ (rows @ x[start:stop].to(rows.dtype))
        return found

    def pinned(self, weight: Tensor, removed: Tensor) -> Tensor:
        """As the protocol says; ``(F^-1[Q, Q])^-1 = lambda (I + lambda V^T (I - lambda V V^T)^-1 V)``, V the vectors at Q."""
        alone = torch.where(removed, weight, torch.zeros_like(weight))
        for start, stop in self._blocks:
            alone[start:stop] = self._solved(self.rows[:, start:stop], alone[start:stop], removed[start:stop])
        return -self.product(alone)

    def _solved(self, rows: Tensor, values: Tensor, gone: Tensor) -> Tensor:
        kernel = torch.eye(len(rows), dtype=torch.float64, device=rows.device)
        for some, here in zip(_columns(rows), gone.split(_width(rows)), strict=True):
            kept = some.double() * here
            kernel.addmm_(kept, kept.T, alpha=-self._damping)
        factor, failed = torch.linalg.cholesky_ex(kernel)
        if bool(failed):
            raise NotPositiveDefinite(f"with damping={self._damping:g} the weights that go determine each other to the "
                                      "last digit: give a larger damping, or compensation='sum'")  # fmt: skip
        shares = torch.cholesky_solve((rows @ values.to(rows.dtype)).double()[:, None], factor)[:, 0]
        back = torch.where(gone, rows.T @ shares.to(rows.dtype), torch.zeros_like(values, dtype=rows.dtype))
        return self._damping * (values + self._damping * back)


def _factorise(rows: Tensor, diagonal: Tensor, damping: float) -> None:
    """Overwrite a block's gradients by its vectors, and ``diagonal`` by that of the inverse."""
    kernel = torch.eye(len(rows), dtype=torch.float64, device=rows.device) * len(rows)
    for some in _columns(rows):
        exact = some.double()
        kernel.addmm_(exact, exact.T, alpha=1 / damping)
    factor = torch.linalg.cholesky(kernel)
    for some, place in zip(_columns(rows), diagonal.split(_width(rows)), strict=True):  # written at once: small tensors that
        vectors = torch.linalg.solve_triangular(factor, some.double() / damping, upper=False)  # stay would split up the heap
        place.copy_(1 / damping - vectors.square().sum(0))
        some.copy_(vectors)


def _width(rows: Tensor) -> int:
    return max(1, _ENTRIES // len(rows))


def _columns(rows: Tensor) -> Iterator[Tensor]:
    """Views of some columns at a time."""
    yield from rows.split(_width(rows), 1)
