"""The pruned models that are compared, the most telling first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from secateurs.errors import BadInput, near

__all__ = ["ALLOCATIONS", "CALIBRATED", "DENSE", "DOMAINS", "MAGNITUDE", "MIXED", "POINTS", "SEEDS", "Cell", "cells", "chosen"]

DENSE, MAGNITUDE = "dense", "magnitude"
CALIBRATED = ("wanda", "sparsegpt", "gblm")
DOMAINS = ("captions-en", "captions-de", "brown", "python")
MIXED = "mixed"
POINTS: Mapping[str, Mapping[str, Any]] = {
    "50 %": {"sparsity": 0.5}, "60 %": {"sparsity": 0.6}, "2:4": {"structure": "2:4"}, "4:8": {"structure": "4:8"},
}  # fmt: skip
SEEDS = (0, 1, 2)
UNIFORM = "uniform"
ALLOCATIONS = ("owl", "ecoflap", "global")


@dataclass(frozen=True)
class Cell:
    """One model: the dense one, or pruned by ``method`` to ``point`` with the text of ``calibration`` that ``seed`` draws."""

    method: str
    point: str | None = None
    calibration: str | None = None
    seed: int = 0
    allocation: str = UNIFORM
    windows: int | None = None
    """At most so many of every domain's validation windows are judged; None for all."""

    @property
    def name(self) -> str:
        """As in ``wanda-2of4-mixed-0``; good for a file."""
        point = self.point and self.point.removesuffix(" %").replace(":", "of")
        seed = None if self.calibration is None else str(self.seed)
        allocation = None if self.allocation == UNIFORM else self.allocation
        return "-".join(part for part in (self.method, point, self.calibration, seed, allocation) if part is not None)

    @property
    def needs(self) -> tuple[str, ...]:
        """No other one."""
        return ()


def cells(windows: int | None = None) -> list[Cell]:
    """All of them: every method and amount on mixed text first, then 60 % over seeds, then single domains, then other
    allocations, then the rest."""
    return list(dict.fromkeys(Cell(*which, windows=windows) for which in _by_worth()))


def chosen(patterns: Sequence[str], among: Sequence[Cell]) -> list[Cell]:
    """Those whose name fits any of ``patterns`` (``wanda-*``), in their order; all of them without patterns.

    Raises:
        BadInput: a pattern that fits none.
    """
    names = [cell.name for cell in among]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise BadInput(f"--only {pattern!r} fits none of the {len(names)} models{near(pattern, names)}")
    return [cell for cell in among if not patterns or any(fnmatchcase(cell.name, pattern) for pattern in patterns)]


def _by_worth() -> Iterator[tuple[Any, ...]]:
    yield DENSE, None, None, 0
    for point in ("60 %", "50 %", "2:4", "4:8"):
        yield MAGNITUDE, point, None, 0
        yield from ((method, point, MIXED, 0) for method in CALIBRATED)
    yield from ((method, "60 %", MIXED, seed) for seed, method in product(SEEDS, CALIBRATED))
    yield from ((method, "50 %", domain, 0) for method, domain in product(CALIBRATED, DOMAINS))
    yield from ((method, "60 %", MIXED, 0, allocation) for allocation in ALLOCATIONS for method in ("wanda", "sparsegpt"))
    for seed, point, text, method in product(SEEDS, POINTS, (*DOMAINS, MIXED), CALIBRATED):
        yield method, point, text, seed
