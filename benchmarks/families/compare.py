"""From records to comparisons: every sparse model beside the dense one of equal bytes. The page's numbers are made here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Comparison", "Point", "compared", "dense_points", "large", "points"]

Record = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """The runs of one model at one width, sparsity and order: one value of the test metric per seed."""

    width: float
    sparsity: float
    order: str | None
    bytes: float
    paper_bytes: float
    nonzeros: float
    density: float
    values: dict[int, float]

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values)

    @property
    def spread(self) -> float:
        """Half the range over the seeds."""
        return half_range(self.values.values())


@dataclass(frozen=True)
class Comparison:
    """A sparse point and its dense rival. ``gains`` are seed by seed, positive where the sparse model is better."""

    sparse: Point
    dense: Point
    gains: tuple[float, ...]

    @property
    def gain(self) -> float:
        return sum(self.gains) / len(self.gains)

    @property
    def winner(self) -> str:
        """``"sparse"`` or ``"dense"`` if it is better on every seed, else ``"neither"``."""
        if all(g > 0 for g in self.gains):
            return "sparse"
        return "dense" if all(g < 0 for g in self.gains) else "neither"


def half_range(values: Iterable[float]) -> float:
    """Half of the largest minus the smallest."""
    listed = list(values)
    return (max(listed) - min(listed)) / 2


def points(records: Sequence[Record]) -> list[Point]:
    """The records of one model, seeds together, by rising bytes."""
    groups: dict[tuple, list[Record]] = {}
    for r in records:
        groups.setdefault((r["width"], r["sparsity"], r["order"]), []).append(r)
    return sorted(map(_point, groups.values()), key=lambda p: p.bytes)


def large(found: Sequence[Point]) -> Point:
    """The large model, dense."""
    return max((p for p in found if not p.sparsity), key=lambda p: p.width)


def dense_points(found: Sequence[Point]) -> list[Point]:
    """The dense models, by rising bytes."""
    return [p for p in found if not p.sparsity]


def compared(found: Sequence[Point], better: str) -> list[Comparison]:
    """Every sparse point with the narrowest dense one of at least as many bytes, by rising sparsity; left out without one."""
    sign, out = (1 if better == "higher" else -1), []
    for sparse in sorted((p for p in found if p.sparsity), key=lambda p: (p.sparsity, p.order or "")):
        dense = next((p for p in dense_points(found) if p.bytes >= sparse.bytes), None)
        seeds = sorted(set(sparse.values) & set(dense.values)) if dense else []
        if dense and seeds:
            out.append(Comparison(sparse, dense, tuple(sign * (sparse.values[s] - dense.values[s]) for s in seeds)))
    return out


def _point(group: Sequence[Record]) -> Point:
    first, values = group[0], {r["seed"]: r["test"] for r in group}
    return Point(first["width"], first["sparsity"], first["order"], _mean(group, "payload_bytes"), _mean(group, "paper_bytes"),
                 _mean(group, "nonzeros"), _mean(group, "average_density"), values)  # fmt: skip


def _mean(group: Sequence[Record], name: str) -> float:
    return sum(r[name] for r in group) / len(group)
