"""The factor of a layer's Hessian that optimal brain surgery works with, found without inverting anything.

SparseGPT (Frantar & Alistarh 2023, section 3) goes through the columns of a weight from left to right and needs, at column
i, the inverse of the Hessian of the columns from i on. Their ``U``, upper triangular with ``U^T U = H^-1``, holds all of these.
Here the same numbers come from ``H = T diag(s^2) T^T`` with ``T`` unit upper triangular: ``U = diag(1/s) T^-1``, so that
``s_i = 1 / U_ii``, and the update that ``U`` spreads to the right can be read from ``T`` (:mod:`secateurs.core.obs`). That is
one Cholesky factorisation instead of two and an inverse, a quarter of the work, and it is done in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.core.select import check_finite
from secateurs.errors import BadInput, SecateursError

__all__ = ["Factor", "NotPositiveDefinite", "factorise"]

_LEAF = 128  # below this many columns, LAPACK; above, matrix products


class NotPositiveDefinite(SecateursError, ArithmeticError):
    """A layer's Hessian has no Cholesky factor; the message names the layer and what to try."""


@dataclass(frozen=True)
class Factor:
    """``H = unit @ diag(scale^2) @ unit.T`` of a dampened Hessian, for every weight that reads the same input.

    ``unit`` is unit upper triangular ``[in, in]``, ``scale`` ``[in]`` positive, ``dead`` ``[in]`` true for inputs that were
    zero on all of the calibration data, ``dampening`` the share of the mean diagonal that was added to it.
    """

    unit: Tensor
    scale: Tensor
    dead: Tensor
    dampening: float

    def upper(self) -> Tensor:
        """``U`` ``[in, in]``, upper triangular, ``U.T U = H^-1``: as published. Costs an inverse; the solver needs none."""
        eye = torch.eye(len(self.scale), dtype=self.unit.dtype, device=self.unit.device)
        return torch.linalg.solve_triangular(self.unit, eye, upper=True, unitriangular=True) / self.scale[:, None]


@torch.no_grad()
def factorise(
    gram: Tensor, dampening: float = 0.01, *, name: str = "weight", dtype: torch.dtype | None = None,
    increase: bool = False, overwrite: bool = False,
) -> Factor:  # fmt: skip
    """The factor of ``gram`` ``[in, in]``, the sum of ``x^T x`` over calibration tokens; a constant factor of it is immaterial.

    Inputs that are dead (a zero on the diagonal) are given the mean diagonal of the others, then ``dampening`` times that mean
    is added to every diagonal entry. Only the upper triangle is read.

    Args:
        gram: symmetric positive semidefinite.
        dampening: 0.01 is the published share.
        name: the layer's, for messages.
        dtype: float32 or float64 to compute in; by default ``gram``'s, 16-bit ones as float32.
        increase: try ten times the dampening, up to 1, where the factorisation fails; ``Factor.dampening`` says what it took.
        overwrite: compute in ``gram``'s own memory, which is lost (not with ``increase``, which may need it again).

    Raises:
        NotFinite: an entry is NaN or infinite.
        BadInput: the shape or the dampening cannot work, or every input is dead.
        NotPositiveDefinite: no factor exists at this dampening. There is no fallback.
    """
    _check(gram, dampening, name)
    work = dtype or torch.promote_types(gram.dtype, torch.float32)
    dead = gram.diagonal() == 0
    mean = float(gram.diagonal().cpu().double().sum()) / int((~dead).sum())
    while True:
        h = gram if overwrite and not increase and gram.dtype == work else gram.to(work, copy=True)
        h.diagonal().add_(dead.to(work) * mean + dampening * mean)
        if _factor(h):
            h.triu_()
            scale = h.diagonal().clone()
            return Factor(h.div_(scale), scale, dead, dampening)
        if not increase or dampening >= 1:
            raise NotPositiveDefinite(_failed(name, len(gram), dampening, increase))
        dampening = min(1.0, 10 * dampening or 0.01)


def _check(gram: Tensor, dampening: float, name: str) -> None:
    if gram.dim() != 2 or gram.shape[0] != gram.shape[1]:
        raise BadInput(f"the Hessian of {name!r} has shape {tuple(gram.shape)}; it is a square matrix [in, in]")
    if isinstance(dampening, bool) or not isinstance(dampening, (int, float)) or not 0 <= dampening < float("inf"):
        raise BadInput(f"dampening={dampening!r}: give a share of the Hessian's mean diagonal, 0.01 for example")
    check_finite(gram, f"Hessian of {name}")
    if not torch.count_nonzero(gram.diagonal()):
        raise BadInput(f"no calibration data reached {name!r}: all of its {len(gram)} inputs were zero; give data that does, "
                       "or exclude it")  # fmt: skip


def _failed(name: str, n: int, dampening: float, increased: bool) -> str:
    what = f"the Hessian of {name!r}, {n} x {n}, is not positive definite with dampening={dampening:g}"
    tried = "; smaller ones were tried" if increased else "; try dampening=0.1, or let it increase by itself"
    return f"{what}{tried}, and calibrate with more tokens: fewer than {n} leave directions without data"


# Blocked, in place, right to left: H = [A B; B^T C] -> V with H = V V^T, V upper triangular. Recursion makes nearly all of it
# products of large matrices. What lies below the diagonal is never read.


def _factor(h: Tensor) -> bool:
    """Replace ``h`` by V (upper triangle); False where it is not positive definite."""
    if len(h) <= _LEAF:
        lower, failed = torch.linalg.cholesky_ex(h.flip(0, 1))  # reads the lower triangle, here the flipped upper one
        h.copy_(lower.flip(0, 1))
        return not int(failed)
    m = _middle(len(h))
    a, b, c = h[:m, :m], h[:m, m:], h[m:, m:]
    if not _factor(c):
        return False
    _divide(b, c)
    _subtract(a, b)
    return _factor(a)


def _divide(b: Tensor, v: Tensor) -> None:
    """``b <- b v^-T``."""
    if len(v) <= _LEAF:
        eye = torch.eye(len(v), dtype=v.dtype, device=v.device)
        inverse = torch.linalg.solve_triangular(v, eye, upper=True)  # small; b is tall, and a product with it is quicker
        b.copy_(b @ inverse.mT)
        return
    m = _middle(len(v))
    _divide(b[:, m:], v[m:, m:])
    b[:, :m].addmm_(b[:, m:], v[:m, m:].mT, alpha=-1)
    _divide(b[:, :m], v[:m, :m])


def _subtract(a: Tensor, b: Tensor) -> None:
    """``a <- a - b b^T``, the upper triangle."""
    if len(a) <= _LEAF:
        a.addmm_(b, b.mT, alpha=-1)
        return
    m = _middle(len(a))
    _subtract(a[:m, :m], b[:m])
    _subtract(a[m:, m:], b[m:])
    a[:m, m:].addmm_(b[:m], b[m:].mT, alpha=-1)


def _middle(n: int) -> int:
    """Half of ``n``, up to whole leaves."""
    return -(-n // (2 * _LEAF)) * _LEAF
