"""The type of a tensor dimension: axes, combined by sums (concatenation) and products (views).

A dimension is a tree. A leaf is an :class:`Axis`; :class:`Prod` lays its factors out from outer to inner, as ``reshape`` does;
:class:`Sum` puts its parts one after the other, as ``cat`` does. ``q_proj`` of a rotary model has rows ``H x (h + h)``: ``H``
heads whose two halves of ``h`` entries turn in pairs. An index of an axis may go if it goes wherever the axis occurs; a flat
index could not say that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ONE", "Axis", "Dim", "Prod", "Sum", "add", "axis", "describe", "labels", "leaves", "multiply", "resolve", "size"]


class Axis:
    """One independent index; frozen when nothing of it may go, replaced by ``becomes`` once found to be something finer."""

    __slots__ = ("becomes", "frozen", "operator", "size")

    def __init__(self, size: int, frozen: str | None = None, operator: str = "") -> None:
        self.size = size
        self.frozen = frozen
        self.operator = operator
        self.becomes: Dim | None = None

    def __repr__(self) -> str:
        return f"Axis({self.size}{', frozen' if self.frozen else ''})"


@dataclass(frozen=True, slots=True)
class Sum:
    """Parts that lie one after the other."""

    parts: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Prod:
    """Factors from outer to inner; the empty product is a dimension of size 1."""

    factors: tuple[Dim, ...]


Dim = Axis | Sum | Prod
ONE = Prod(())


def axis(size: int, frozen: str | None = None, operator: str = "") -> Dim:
    """A new axis, or :data:`ONE` for size 1: a single index can never be removed, so it is no axis."""
    return ONE if size == 1 else Axis(size, frozen, operator)


def size(dim: Dim) -> int:
    """The number of positions."""
    if isinstance(dim, Axis):
        return dim.size
    if isinstance(dim, Sum):
        return sum(size(part) for part in dim.parts)
    return math.prod(size(factor) for factor in dim.factors)


def add(parts: Iterable[Dim]) -> Dim:
    """The concatenation of ``parts``, flat and without empty ones."""
    flat: list[Dim] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Sum) else (part,) if size(part) else ())
    return flat[0] if len(flat) == 1 else Sum(tuple(flat))


def multiply(factors: Iterable[Dim]) -> Dim:
    """The product of ``factors``, flat; an outermost sum is multiplied out: ``(a + b) x c`` lies in memory as ``ac + bc``."""
    flat: list[Dim] = []
    for factor in factors:
        flat.extend(factor.factors if isinstance(factor, Prod) else (factor,))
    if len(flat) == 1:
        return flat[0]
    if flat and isinstance(flat[0], Sum):
        return add(multiply([part, *flat[1:]]) for part in flat[0].parts)
    return Prod(tuple(flat))


def resolve(dim: Dim) -> Dim:
    """``dim`` with every replaced axis substituted, in canonical form."""
    if isinstance(dim, Axis):
        if dim.becomes is None:
            return dim
        dim.becomes = resolve(dim.becomes)
        return dim.becomes
    if isinstance(dim, Sum):
        return add(resolve(part) for part in dim.parts)
    return multiply(resolve(factor) for factor in dim.factors)


def leaves(dim: Dim) -> Iterator[Axis]:
    """Every axis of a resolved ``dim``, in order, repeated as often as it occurs."""
    if isinstance(dim, Axis):
        yield dim
    else:
        for child in dim.parts if isinstance(dim, Sum) else dim.factors:
            yield from leaves(child)


def labels(dim: Dim, of: Axis) -> Tensor:
    """int64 ``[size(dim)]``: which index of the axis ``of`` each position of a resolved ``dim`` belongs to, -1 for none."""
    if isinstance(dim, Axis):
        return torch.arange(dim.size) if dim is of else torch.full((dim.size,), -1)
    if isinstance(dim, Sum):
        return torch.cat([torch.arange(0), *[labels(part, of) for part in dim.parts]])
    found = torch.full((1,), -1)
    for factor in dim.factors:
        found = torch.maximum(found[:, None], labels(factor, of)[None, :]).reshape(-1)
    return found


def describe(dim: Dim) -> str:
    """The sizes of ``dim`` as a reader would write them: ``2 x 6``, ``(4 + 4)``."""
    if isinstance(dim, Axis):
        return str(dim.size)
    if isinstance(dim, Sum):
        return "(" + " + ".join(describe(part) for part in dim.parts) + ")"
    return " x ".join(describe(factor) for factor in dim.factors) or "1"
