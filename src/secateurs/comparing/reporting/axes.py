"""Axes of the charts, on the page and in pictures alike: what a model costs, how quality is drawn, ranges and ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from secateurs.comparing.reporting.points import Entry, TaskResults
from secateurs.comparing.reporting.tables import latency_ratio, share

__all__ = ["AXES", "Axis", "Scale", "density", "scales", "span", "tick_text", "ticks", "usable"]

_SQUEEZED = 8.0  # on a linear axis one ruined model presses all others together
_FINE = (1, 1.1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3.2, 3.6, 4, 4.5, 5, 5.5, 6, 7, 8, 9)
_CROWDED = 2.0  # how many times taller random pruning makes the plot before a close-up without it is offered


@dataclass(frozen=True)
class Axis:
    """Something a model costs."""

    label: str
    title: str
    logarithmic: bool
    of: Callable[[TaskResults, Entry], float | None]


@dataclass(frozen=True)
class Scale:
    """How quality is drawn: as it is, or as what is missing to 100 % on a logarithmic axis; the best is always on top."""

    label: str
    title: str
    logarithmic: bool = False
    reversed: bool = False
    missing: bool = False
    close: bool = False
    """Whether random pruning has no say in the range, so that it may leave the plot."""

    def place(self, task: TaskResults, value: float) -> float | None:
        """Where a raw value lies on the axis; None if it has no place there."""
        shown = value * task.metric.scale
        if self.missing:
            shown = 100.0 - shown
        return None if self.logarithmic and shown <= 0 else shown

    def range(self, task: TaskResults) -> tuple[float, float]:
        """Lowest and highest value to show, with room for standard errors and markers."""
        edges = []
        for entry in (entry for entry in task.entries if not (self.close and entry.role == "random")):
            values = entry.spread("value")
            error = values.error or 0.0
            edges += [self.place(task, values.mean + side * error) for side in (-1, 0, 1)]
        return span((edge for edge in edges if edge is not None), self.logarithmic)


def density(task: TaskResults, entry: Entry) -> float | None:
    """Non-zero parameters of the whole network, in per cent of the dense model's parameters."""
    whole = (task.dense or max(task.entries, key=lambda e: e.mean("parameters") or 0.0)).mean("parameters")
    return 100.0 * (entry.mean("nonzero") or 0.0) / whole if whole else None


def _latency(task: TaskResults, entry: Entry) -> float | None:
    ratios = [ratio for row in entry.rows if (ratio := latency_ratio(row)) is not None]
    return sum(ratios) / len(ratios) if ratios else None


def _multiply_adds(task: TaskResults, entry: Entry) -> float | None:
    part = share(entry, "multiply_adds")
    return None if part is None else 100.0 * part


AXES = (
    Axis("density", "non-zero parameters, % of dense", True, density),
    Axis("bytes", "bytes stored", True, lambda task, entry: entry.mean("bytes")),
    Axis("multiply-adds", "multiply-adds of non-zero weights, % of dense", True, _multiply_adds),
    Axis("latency", "measured latency, × the dense model's", False, _latency),
    Axis("training cost", "training cost, steps × average density", False, lambda task, entry: entry.mean("cost_steps")),
)


def usable(task: TaskResults) -> list[Axis]:
    """The axes on which at least one pruned model of ``task`` has a place."""
    return [axis for axis in AXES if any(axis.of(task, entry) for entry in task.entries if entry.point is not None)]


def scales(task: TaskResults) -> list[Scale]:
    """The vertical axes of ``task``, the one to begin with first."""
    metric = task.metric
    plain = Scale(metric.title, metric.heading, reversed=not metric.higher_is_better)
    close = Scale("close-up", f"{metric.heading} (without random pruning)", reversed=plain.reversed, close=True)
    found = [plain]
    whole, near = (high - low for low, high in (plain.range(task), close.range(task)))
    if any(entry.role == "random" for entry in task.entries) and whole > _CROWDED * near > 0:
        found.append(close)
    if metric.unit == "%" and metric.higher_is_better:
        log = Scale("error (log)", f"100 − {metric.title}, % (logarithmic, best on top)", True, True, True)
        missing = [1.0 - entry.spread("value").mean for entry in task.entries]
        found.insert(0 if 0 < _SQUEEZED * min(missing) < max(missing) else len(found), log)
    return found


def span(values: Iterable[float], logarithmic: bool) -> tuple[float, float]:
    """From the lowest to the highest value, and some room beside them."""
    known = [value for value in values if value > 0 or not logarithmic]
    if not known:
        return (1.0, 10.0) if logarithmic else (0.0, 1.0)
    low, high = min(known), max(known)
    if logarithmic:
        room = (high / low) ** 0.06 if high > low else 1.3
        return low / room, high * room
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: a few per range, whether that is a hundredth of a decade or five."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kinds: tuple[tuple[float, ...], ...] = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8), _FINE)
    for steps in kinds:
        found = [step * 10.0**power for power in powers for step in steps]
        if len(inside := [value for value in found if low <= value <= high]) >= 4:
            return inside
    return _even(low, high)


def _even(low: float, high: float) -> list[float]:
    """Multiples of a round number, four to nine of them."""
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = max(unit * times for times in (1, 2, 5) if unit * times <= rough)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_text(value: float) -> str:
    """``"0.5"``, ``"20"``, ``"5 k"``, ``"2 M"``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {letter}"
    return f"{value:.4g}"
