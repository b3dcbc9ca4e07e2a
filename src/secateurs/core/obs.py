"""SparseGPT's solver: remove weights of a matrix one column after the other and let the columns to the right make up for it.

With ``H = T diag(s^2) T^T`` (:mod:`secateurs.core.obs_factor`), ``w`` the old weights of a row and ``q`` the new ones, the
published updates ``w_j -= e_i U_ij`` for every column i left of j add up to

    ``a_j = w_j + sum over i < j of (w_i - q_i) T_ij``,    ``q_j = a_j`` where it stays, else 0,    ``e_j = (a_j - q_j) s_j``,

for all rows at once, and ``(w - q) H (w - q)^T = sum of e_j^2``: the layer's squared output error. Going through the columns
by halves (left half, one matrix product, right half) leaves nearly all the work to large matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateurs.core.count import largest_remainder
from secateurs.core.grid import Grid
from secateurs.core.layout import Layout
from secateurs.core.obs_factor import Factor
from secateurs.core.select import check_finite, keep_mask, keep_mask_grouped
from secateurs.core.structures import NM
from secateurs.errors import BadInput

__all__ = ["Blockwise", "Fixed", "Groups", "Rule", "Solved", "solve"]

_LEAF = 32  # columns taken one by one before a matrix product


class Rule(Protocol):
    """Says which weights stay, for ``width`` columns at a time, when everything to their left is done."""

    @property
    def width(self) -> int:
        """How many columns are judged together."""

    def check(self, name: str, shape: torch.Size) -> None:
        """Raise :class:`BadInput` where the rule does not fit a matrix of ``shape``."""

    def keep(self, scores: Callable[[], Tensor], start: int, stop: int, name: str) -> Tensor:
        """Boolean ``[out, stop - start]``, of ``scores()`` of that shape for these columns; higher = keep."""


@dataclass(frozen=True)
class Blockwise:
    """Unstructured: ``quotas[b]`` weights go from the b-th block of ``width`` columns, whichever rows they lie in."""

    quotas: tuple[int, ...]
    width: int = 128

    @classmethod
    def of(cls, shape: Sequence[int], remove: int, width: int = 128) -> Blockwise:
        """``remove`` of a matrix ``[out, in]`` in equal shares of its column blocks (largest remainder, ties to the left)."""
        rows, columns = shape
        if width < 1 or not 0 <= remove <= rows * columns:
            raise BadInput(f"remove={remove!r}, block={width!r}: a matrix of {rows} x {columns} loses 0 to {rows * columns} "
                           "weights, in blocks of at least one column")  # fmt: skip
        sizes = [rows * (min(start + width, columns) - start) for start in range(0, columns, width)]
        return cls(tuple(largest_remainder([remove * n / (rows * columns) for n in sizes], remove, sizes)), width)

    def check(self, name: str, shape: torch.Size) -> None:
        """There is one quota per block."""
        if len(self.quotas) != -(-shape[1] // self.width):
            raise BadInput(f"{len(self.quotas)} quotas for the blocks of {self.width} columns of {name!r}, {tuple(shape)}")

    def keep(self, scores: Callable[[], Tensor], start: int, stop: int, name: str) -> Tensor:
        """Exactly the quota goes, ties by flat index."""
        return keep_mask(scores().contiguous(), self.quotas[start // self.width], name)


@dataclass(frozen=True)
class Groups:
    """N kept of every M consecutive columns of a row."""

    nm: NM

    @property
    def width(self) -> int:
        """M."""
        return self.nm.m

    def check(self, name: str, shape: torch.Size) -> None:
        """M divides the columns, or the structure pads."""
        self.nm.check(name, shape, Layout())

    def keep(self, scores: Callable[[], Tensor], start: int, stop: int, name: str) -> Tensor:
        """N per row; a last, short group of r keeps min(N, r)."""
        return keep_mask_grouped(scores(), max(0, stop - start - self.nm.n), name)


@dataclass(frozen=True)
class Fixed:
    """The mask is given: ``[out, in]``, True = kept."""

    mask: Tensor
    width: int = 128

    def check(self, name: str, shape: torch.Size) -> None:
        """The mask is boolean and fits."""
        if self.mask.dtype != torch.bool or self.mask.shape != shape:
            raise BadInput(f"the mask of {name!r} is {self.mask.dtype} {tuple(self.mask.shape)}; it must be boolean "
                           f"{tuple(shape)}, True = kept")  # fmt: skip

    def keep(self, scores: Callable[[], Tensor], start: int, stop: int, name: str) -> Tensor:
        """What the mask says, whatever the scores."""
        return self.mask[:, start:stop]


@dataclass(frozen=True)
class Solved:
    """What :func:`solve` found: ``weight`` and ``mask`` ``[out, in]`` (True = kept), ``errors`` ``[out]``, the grid if any.

    ``errors`` are the sums of ``e_i^2`` per row: ``(w - q) H (w - q)^T`` with the dampened H.
    """

    weight: Tensor
    mask: Tensor
    errors: Tensor
    grid: Grid | None = None


@torch.no_grad()
def solve(weight: Tensor, factor: Factor, rule: Rule, *, bits: int | None = None, name: str = "weight") -> Solved:
    """Prune ``weight`` ``[out, in]`` by ``rule`` and update what stays; ``weight`` itself is not changed.

    A weight is judged, when its block's turn comes, by the root of SparseGPT's ``w_j^2 / U_jj^2`` as updated until then.
    Weights that are zero already go first, then those of dead inputs, so pruning a result again changes nothing. Weights of
    dead inputs that the count leaves are kept as they are (the authors' code zeroes them, whatever the count). Where nothing is
    removed or rounded, the weights come back bit for bit.

    Args:
        weight: any floating dtype; computed in the factor's.
        factor: of the Hessian of the layer's input, shared by all weights that read it.
        rule: :class:`Blockwise`, :class:`Groups` or :class:`Fixed`.
        bits: round what stays to a grid of 2^bits values per row as well (:class:`~secateurs.core.grid.Grid`), fitted to
            ``weight`` as given; later columns make up for both errors.
        name: for messages.

    Raises:
        BadInput: the shapes do not fit.
        NotFinite: a weight is NaN or infinite, or becomes so.
    """
    if weight.dim() != 2 or weight.shape[1] != len(factor.scale):
        raise BadInput(f"{name!r} has shape {tuple(weight.shape)}, its Hessian {len(factor.scale)} inputs; the solver takes a "
                       "matrix [out, in]")  # fmt: skip
    rule.check(name, weight.shape)
    check_finite(weight, name)
    sweep = _Sweep(weight, factor, rule, None if bits is None else Grid.fit(weight.to(factor.unit.dtype), bits), name)
    sweep.blocks(0, weight.shape[1])
    kept, same = sweep.kept.T.contiguous(), (sweep.lost == 0).T.contiguous()
    # sums and products make -0 of 0 and the reverse: what lost nothing is the old weight itself, what is removed is plain 0
    new = torch.where(same, weight, sweep.now.T.to(weight.dtype).contiguous()).masked_fill_(~kept, 0)
    check_finite(new, name)
    return Solved(new.contiguous(), kept, sweep.errors, sweep.grid)


class _Sweep:
    """One way through the columns. All buffers are transposed, ``[in, out]``, so that a column is contiguous."""

    def __init__(self, weight: Tensor, factor: Factor, rule: Rule, grid: Grid | None, name: str):
        self.factor, self.rule, self.grid, self.name = factor, rule, grid, name
        self.now = weight.T.to(factor.unit.dtype, copy=True, memory_format=torch.contiguous_format)  # a, then q
        self.lost = self.now.clone()  # w, then w - q
        self.kept = torch.empty(self.now.shape, dtype=torch.bool, device=weight.device)
        self.errors = torch.zeros(len(weight), dtype=self.now.dtype, device=weight.device)

    def blocks(self, start: int, stop: int) -> None:
        """Columns ``start`` to ``stop``, a whole number of the rule's blocks (the last may be short)."""
        count = -(-(stop - start) // self.rule.width)
        if count > 1:
            middle = start + count // 2 * self.rule.width
            self.blocks(start, middle)
            self.spread(start, middle, stop)
            self.blocks(middle, stop)
            return
        self.kept[start:stop] = self.rule.keep(lambda: self.scores(start, stop).T, start, stop, self.name).T
        self.columns(start, stop)

    def scores(self, start: int, stop: int) -> Tensor:
        """``|a_j| s_j`` of columns not yet changed; -1 for dead inputs, -2 for weights that were zero to begin with.

        The ``a_j`` are those to be if every column stayed, which then each make up for a part of what is lost to their left.
        """
        s, dead = self.factor.scale[start:stop, None], self.factor.dead[start:stop, None]
        old, unit = self.lost[start:stop], self.factor.unit[start:stop, start:stop]
        to_make_up = torch.linalg.solve_triangular(unit.T, self.now[start:stop] - old, upper=False, unitriangular=True)
        return ((old + to_make_up).abs_() * s).masked_fill_(dead, -1).masked_fill_(old == 0, -2)

    def spread(self, start: int, middle: int, stop: int) -> None:
        """Let columns ``middle`` to ``stop`` make up for what ``start`` to ``middle`` lost."""
        self.now[middle:stop].addmm_(self.factor.unit[start:middle, middle:stop].T, self.lost[start:middle])

    def columns(self, start: int, stop: int) -> None:
        """Columns whose mask is known."""
        if stop - start <= _LEAF:
            self.leaf(start, stop)
            return
        middle = start + -(-(stop - start) // (2 * _LEAF)) * _LEAF
        self.columns(start, middle)
        self.spread(start, middle, stop)
        self.columns(middle, stop)

    def leaf(self, start: int, stop: int) -> None:
        """A few columns, one after the other."""
        now, lost = self.now[start:stop], self.lost[start:stop]
        stays = self.kept[start:stop].to(now.dtype)
        new = self.one_by_one(now, lost, stays, self.factor.unit[start:stop, start:stop].triu(1).T.contiguous())
        self.errors += ((now - new) * self.factor.scale[start:stop, None]).square_().sum(0)
        now.copy_(new)

    def one_by_one(self, now: Tensor, lost: Tensor, stays: Tensor, unit: Tensor) -> Tensor:
        """The new values of a leaf's columns; turns ``now`` into a and ``lost`` into w - q. ``unit`` is strictly lower."""
        before = lost.T
        for a, d, stay, row in zip(now.unbind(), lost.unbind(), stays.unbind(), unit.unbind(), strict=True):
            a.addmv_(before, row)
            if self.grid is None:
                d.addcmul_(a, stay, value=-1)
            else:
                d.sub_(self.grid.round(a).mul_(stay))
        return (now if self.grid is None else self.grid.round(now)) * stays
