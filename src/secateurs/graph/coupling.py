"""Ragged children: axes that may lose other indices for every index of another axis.

An axis whose every carrier also carries its parent is never met by anything that has no parent beside it, so the indices of one
parent have nothing to do with those of the next: the head dimensions of one head, the channels of one convolution group, the
query heads of one key-value head. It must not be so where positions along the parent meet, as in a softmax over it.
"""

from __future__ import annotations

from collections.abc import Iterable

from secateurs.graph.axes import Axis, Dim, Prod, leaves, resolve

__all__ = ["parents"]

Mixed = tuple[tuple[Dim, ...], tuple[Dim, ...]]


def parents(members: Iterable[Axis], carriers: Iterable[tuple[Dim, ...]], mixed: Iterable[Mixed] = ()) -> dict[Axis, Axis]:
    """Axis -> its parent, for those of ``members`` that have one among them: the first that is always there, and outside.

    ``mixed`` are dimensions along which positions meet, each with all dimensions of the value in which they do.
    """
    wanted = dict.fromkeys(members)
    apart = {(axis, parent) for along, dims in mixed for parent in _axes(along) for axis in _axes(dims) - _axes(along)}
    found: dict[Axis, list[Axis]] = {}
    for dims in set(carriers):
        own = [dict.fromkeys(leaves(dim)) for dim in dims]
        present = list(dict.fromkeys(axis for axes in own for axis in axes if axis in wanted))
        for axis in present:
            if axis.frozen is None:
                before = found.get(axis, present)
                found[axis] = [p for p in before if p is not axis and p in present and (axis, p) not in apart
                               and _outside(dims, own, axis, p)]  # fmt: skip
    return {axis: candidates[0] for axis, candidates in found.items() if candidates}


def _axes(dims: Iterable[Dim]) -> set[Axis]:
    return {leaf for dim in dims for leaf in leaves(resolve(dim))}


def _outside(dims: tuple[Dim, ...], own: list[dict[Axis, None]], axis: Axis, parent: Axis) -> bool:
    """Whether ``parent`` is one whole other dimension's business, or an outer factor wherever ``axis`` lies."""
    here = [dim for dim, axes in zip(dims, own, strict=True) if axis in axes]
    if all(_above(dim, axis, parent) for dim in here):
        return True
    elsewhere = [dim for dim, axes in zip(dims, own, strict=True) if parent in axes and axis not in axes]
    return (
        len(elsewhere) > 0 and not any(parent in leaves(dim) for dim in here) and all(_throughout(d, parent) for d in elsewhere)
    )


def _above(dim: Dim, axis: Axis, parent: Axis) -> bool:
    """Whether every occurrence of ``axis`` in ``dim`` is multiplied by ``parent`` from the outer side."""
    if isinstance(dim, Axis):
        return dim is not axis
    if not isinstance(dim, Prod):
        return all(_above(part, axis, parent) for part in dim.parts)
    for i, factor in enumerate(dim.factors):
        if axis in leaves(factor):
            return parent in dim.factors[:i] or _above(factor, axis, parent)
    return True


def _throughout(dim: Dim, parent: Axis) -> bool:
    """Whether every position of ``dim`` belongs to one index of ``parent``."""
    if isinstance(dim, Axis):
        return dim is parent
    if isinstance(dim, Prod):
        return any(_throughout(factor, parent) for factor in dim.factors)
    return all(_throughout(part, parent) for part in dim.parts)
