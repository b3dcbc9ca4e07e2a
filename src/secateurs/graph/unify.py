"""Say that two dimensions are the same: refine both to common cuts, then make their axes one, everywhere at once.

A cut inside an axis splits it into a sum, a view that factors it splits it into a product; either replaces the axis in every
dimension that carries it. Where no common refinement exists (12 seen as 2 x 6 here and as 3 x 4 there), all axes on both sides
are frozen and keep the reason. A frozen axis is never refined, for nothing of it will go.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from secateurs.graph.axes import Axis, Dim, Prod, Sum, add, axis, describe, labels, leaves, multiply, resolve, size

__all__ = ["cut", "fixed", "freeze", "freeze_all", "split", "unify"]

PINNED = "its positions are used one by one"


class Conflict(Exception):
    """No common refinement."""


def fixed(dim: Dim) -> bool:
    """Whether nothing of a resolved ``dim`` can be removed."""
    return all(leaf.frozen is not None for leaf in leaves(dim))


def freeze(dim: Dim, reason: str, operator: str) -> None:
    """Freeze every axis of ``dim`` that is not frozen yet: the first reason stays."""
    for leaf in leaves(resolve(dim)):
        if leaf.frozen is None:
            leaf.frozen, leaf.operator = reason, operator


def freeze_all(dims: Iterable[Dim], reason: str, operator: str) -> None:
    """:func:`freeze` each of ``dims``."""
    for dim in dims:
        freeze(dim, reason, operator)


def unify(a: Dim, b: Dim, operator: str = "") -> None:
    """Make two dimensions of one size the same. ``operator`` names who asks, for the reason of what has to be frozen."""
    a, b = resolve(a), resolve(b)
    if a == b or size(a) == size(b) <= 1:
        return
    try:
        _unify(a, b, operator)
    except Conflict:
        if _alike(resolve(a), resolve(b)):
            return
        reason = f"{describe(a)} and {describe(b)} are one dimension, and have no common refinement"
        freeze(a, reason, operator)
        freeze(b, reason, operator)


def _unify(a: Dim, b: Dim, operator: str) -> None:
    if size(a) != size(b):
        raise Conflict
    if fixed(a):
        _freeze_like(b, a, operator)
    elif fixed(b):
        _freeze_like(a, b, operator)
    elif isinstance(a, Axis):
        _bind(a, b)
    elif isinstance(b, Axis):
        _bind(b, a)
    elif isinstance(a, Sum) or isinstance(b, Sum):
        _unify_sums(a, b, operator)
    else:
        _unify_products(a, b, operator)


def _alike(a: Dim, b: Dim) -> bool:
    """Whether every free axis lies at the same positions of both, however the trees are written."""
    free = {leaf for leaf in (*leaves(a), *leaves(b)) if leaf.frozen is None}
    return size(a) == size(b) and all(torch.equal(labels(a, leaf), labels(b, leaf)) for leaf in free)


def _freeze_like(dim: Dim, model: Dim, operator: str) -> None:
    first = next(leaves(model), None)
    if first is None:
        freeze(dim, PINNED, operator)
    else:
        freeze(dim, first.frozen or PINNED, first.operator)


def _bind(leaf: Axis, dim: Dim) -> None:
    """Replace an unfrozen axis by ``dim`` (by the other axis, where that is what ``dim`` is)."""
    if leaf.frozen is not None or any(other is leaf for other in leaves(dim)):
        raise Conflict
    leaf.becomes = dim


def _unify_sums(a: Dim, b: Dim, operator: str) -> None:
    """From the left: cut both at the nearer of their first cuts, unify the left pieces, go on with the right ones."""
    while True:
        nearest = min(_head(a), _head(b))
        if nearest == size(a):
            return unify(a, b, operator)
        left, a = cut(a, nearest)
        other, b = cut(b, nearest)
        unify(left, other, operator)
        a, b = resolve(a), resolve(b)


def _head(dim: Dim) -> int:
    return size(dim.parts[0]) if isinstance(dim, Sum) else size(dim)


def _unify_products(a: Dim, b: Dim, operator: str) -> None:
    """From the outer side: split the larger outermost factor by the smaller one, unify, go on with the rest."""
    assert isinstance(a, Prod) and isinstance(b, Prod)
    (x, *rest_a), (y, *rest_b) = a.factors, b.factors
    if size(x) > size(y):
        x, inner = split(x, size(y))
        rest_a.insert(0, inner)
    elif size(y) > size(x):
        y, inner = split(y, size(x))
        rest_b.insert(0, inner)
    unify(x, y, operator)
    unify(multiply(rest_a), multiply(rest_b), operator)


def cut(dim: Dim, at: int) -> tuple[Dim, Dim]:
    """``dim`` before and after position ``at`` (inside it).

    Raises:
        Conflict: the cut would fall inside a product's inner factors.
    """
    dim = resolve(dim)
    if isinstance(dim, Axis):
        left, right = (axis(n, dim.frozen, dim.operator) for n in (at, dim.size - at))
        if dim.frozen is None:
            dim.becomes = add([left, right])
        return left, right
    if isinstance(dim, Sum):
        return _cut_sum(dim, at)
    outer, inner = dim.factors[0], multiply(dim.factors[1:])
    if at % size(inner):
        raise Conflict
    left, right = cut(outer, at // size(inner))
    inner = resolve(inner)  # the outer factor may be part of it
    return multiply([resolve(left), inner]), multiply([resolve(right), inner])


def _cut_sum(dim: Sum, at: int) -> tuple[Dim, Dim]:
    before: list[Dim] = []
    parts = list(dim.parts)
    while parts and size(parts[0]) <= at:
        before.append(parts.pop(0))
        at -= size(before[-1])
    if at:
        left, right = cut(parts.pop(0), at)
        before.append(left)
        parts.insert(0, right)
    return resolve(add(before)), resolve(add(parts))


def split(dim: Dim, outer: int) -> tuple[Dim, Dim]:
    """An axis as a product of ``outer`` and the rest.

    Raises:
        Conflict: the size is no multiple of ``outer``, or ``dim`` is no single axis.
    """
    if not isinstance(dim, Axis) or dim.size % outer:
        raise Conflict
    parts = axis(outer, dim.frozen, dim.operator), axis(dim.size // outer, dim.frozen, dim.operator)
    if dim.frozen is None:
        dim.becomes = multiply(parts)
    return parts
