"""From scores of single weights to one score per index of a coupled group: add up, reduce over the members, normalise.

A group is what must leave together: index k of it is a row of one tensor, a column of the next, an entry of a norm. Each of
these slices is a *member*. The rules are those of DepGraph (Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023,
and its code) and of SPA (Structurally Prune Anything, 2024), which take any criterion of single weights; higher = keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from secateurs.errors import BadInput, near

__all__ = ["NORMALISERS", "REDUCTIONS", "normalise", "reduce_members", "slice_sums", "table_sums"]


def slice_sums(scores: Tensor, dim: int, index: Tensor, power: float = 1.0) -> Tensor:
    """``I[k] = sum of |s|^power`` over the slice of index k, without a root, as float64 ``[size]``.

    Args:
        scores: of every entry of a tensor; those below zero, which rank what is zero already, count as zero.
        dim: the dimension that carries the group.
        index: the positions along it that belong to each index, ``[size, per]``.
        power: 2 with magnitude scores is the squared norm.
    """
    return _along(scores, (dim,), power)[index].sum(1)


def table_sums(scores: Tensor, parent: tuple[int, Tensor], child: tuple[int, Tensor], power: float = 1.0) -> Tensor:
    """As :func:`slice_sums` for every pair of a parent's index and a child's, ``[parents, children]``.

    ``parent`` and ``child`` are each a dimension and its positions; on the same dimension, a pair has the positions of both.
    """
    (a, rows), (b, columns) = parent, child
    if a != b:
        laid = _along(scores, (a, b), power)
        return laid[rows][:, :, columns].sum((1, 3))
    laid = _along(scores, (a,), power)
    parent_of = _owner(rows, len(laid))
    result = torch.zeros(len(rows), len(columns), dtype=laid.dtype, device=laid.device)
    for k, mine in enumerate(columns):
        inside = mine[parent_of[mine] >= 0]
        result[:, k].index_add_(0, parent_of[inside], laid[inside])
    return result


def _along(scores: Tensor, dims: tuple[int, ...], power: float) -> Tensor:
    """Sums over every dimension but ``dims``, which come out in this order."""
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32)).clamp_min(0)
    exact = exact if power == 1 else exact.pow(power)
    others = [d for d in range(scores.dim()) if d not in dims]
    summed = exact.sum(others, dtype=torch.float64) if others else exact.double()
    return summed if list(dims) == sorted(dims) else summed.T


def _owner(rows: Tensor, length: int) -> Tensor:
    """Which index every position belongs to, -1 for none."""
    owner = torch.full((length,), -1, dtype=torch.int64, device=rows.device)
    owner[rows.reshape(-1)] = torch.arange(len(rows), device=rows.device).repeat_interleave(rows.shape[1])
    return owner


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda stacked: stacked.mean(0),
    "sum": lambda stacked: stacked.sum(0),
    "max": lambda stacked: stacked.amax(0),
    "l2": lambda stacked: stacked.sum(0).sqrt(),
}


def reduce_members(members: Sequence[Tensor], how: str = "mean") -> Tensor:
    """One score per index from those of the members, in the members' shape.

    ``mean`` is ``1/J`` of the sum over the J members, however large each is. ``l2`` is the root of the sum: with power 2 the
    Euclidean norm over all entries of the index.

    Raises:
        BadInput: an unknown reduction, or no member.
    """
    if how not in REDUCTIONS:
        raise BadInput(f"aggregate={how!r} is unknown; use one of {', '.join(REDUCTIONS)}" + near(how, REDUCTIONS))
    if not members:
        raise BadInput("a group without a scored member has no scores")
    return REDUCTIONS[how](torch.stack(list(members)))


def _over(scores: Tensor, size: Tensor) -> Tensor:
    """``scores / size``; all zero where the size is."""
    return scores / size if float(size) > 0 else torch.zeros_like(scores)


def _gaussian(scores: Tensor) -> Tensor:
    return _over(scores - scores.mean(), scores.std(correction=0))


def _lamp(scores: Tensor) -> Tensor:
    """Each score over the sum of those that are not lower (of equal ones, the later is lower)."""
    order = torch.argsort(scores.flip(0), stable=True)
    order = len(scores) - 1 - order
    ascending = scores[order]
    remaining = ascending.flip(0).cumsum(0).flip(0)
    result = torch.empty_like(scores)
    result[order] = torch.where(remaining > 0, ascending / remaining.clamp_min(torch.finfo(scores.dtype).tiny), 0.0)
    return result


NORMALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda scores: scores,
    "mean": lambda scores: _over(scores, scores.mean()),
    "sum": lambda scores: _over(scores, scores.sum()),
    "max": lambda scores: _over(scores, scores.amax()),
    "minmax": lambda scores: _over(scores - scores.amin(), scores.amax() - scores.amin()),
    "gaussian": _gaussian,
    "lamp": _lamp,
}


def normalise(scores: Tensor, how: str = "mean") -> Tensor:
    """Make the scores of one group comparable with those of others; the order inside the group stays.

    ``mean``, ``sum``, ``max``: divided by it. ``minmax``: from 0 to 1. ``gaussian``: mean 0 and standard deviation 1 (of the
    population). ``lamp``: each over the sum of those not lower (Lee et al., Layer-adaptive Sparsity, ICLR 2021). A group whose
    scores do not differ where a rule divides by their spread, or that are all zero, gets zeros.

    Raises:
        BadInput: an unknown rule.
    """
    if how not in NORMALISERS:
        raise BadInput(f"normalize={how!r} is unknown; use one of {', '.join(NORMALISERS)}" + near(how, NORMALISERS))
    return NORMALISERS[how](scores.reshape(-1)).reshape(scores.shape)
