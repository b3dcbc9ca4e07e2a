"""The tables of a comparison. What a seed determines and what a clock says are kept apart: two runs of one comparison give
the same quality, pair and layer tables, to the byte; times are another table.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from secateurs.comparing.reporting.points import Entry, Pair, TaskResults
from secateurs.comparing.spec import MASKED
from secateurs.report.rows import Metric, Row, Spread
from secateurs.report.tables import Table

__all__ = ["latency_ratio", "layer_matrix", "layers_table", "pairs_table", "quality_table", "records", "share", "signed",
           "summary_table", "times_table"]  # fmt: skip

NONE = "–"


@dataclass(frozen=True)
class _Column:
    """A heading and what stands under it."""

    heading: str
    cell: Callable[[TaskResults, Entry], str]


def quality_table(tasks: Sequence[TaskResults]) -> Table:
    """Quality and what it costs, a section per operating point; the task is named where there are several."""
    columns = [
        _quality(tasks), _rival("dense"), _rival("small-dense"), _rival("random"), _Column("before training", _before), _BYTES,
        _Column("multiply-adds, %", lambda task, entry: _number(share(entry, "multiply_adds"), "{:.1f}", 100)),
        _Column("cost, steps", lambda task, entry: _number(entry.mean("cost_steps"), "{:,.0f}")), _SEEDS,
    ]  # fmt: skip
    caption = (
        "Mean ± standard error over seeds; differences are paired over the seeds both sides have (n where these are fewer), "
        "recomputed from the raw values. Bytes: every tensor stored dense or as bit mask and values, whichever is smaller. "
        ""
        "Multiply-adds: of non-zero weights, in % of the dense model's. Cost: of training, steps × average density, the dense "
        "training before it included."
    )
    return _table(tasks, columns, caption)


def summary_table(tasks: Sequence[TaskResults]) -> Table:
    """The columns of :func:`quality_table` that a terminal has room for."""
    columns = [_quality(tasks), _rival("dense"), _rival("small-dense"), _BYTES, _SEEDS]
    return _table(tasks, columns, "Mean ± standard error over seeds; differences are paired over seeds.")


def times_table(tasks: Sequence[TaskResults]) -> Table:
    """What a clock said, and memory: latency beside the dense model's, seconds of training."""
    columns = [
        _Column("latency, ms", lambda task, entry: _number(_median(entry, _latency("median_s")), "{:.3g}", 1e3)),
        _Column("× dense", lambda task, entry: _number(_median(entry, latency_ratio), "{:.2f}")),
        _Column("spread, %", lambda task, entry: _number(_median(entry, _latency_spread), "{:.0f}", 100)),
        _Column("training, s", lambda task, entry: _number(_median(entry, _seconds("training")), "{:,.1f}")),
        _Column("whole run, s", lambda task, entry: _number(_median(entry, _seconds("total")), "{:,.1f}")),
        _Column("peak memory, MB", lambda task, entry: _number(entry.mean("peak_memory_bytes"), "{:,.2f}", 1e-6)),
        _SEEDS,
    ]
    caption = (
        "Medians over seeds. Latency: median of repeated calls, in turns with the dense model in the same process; spread: "
        "distance of the quartiles of these calls, relative to the dense median. Peak memory: tensors of one training step."
    )
    return _table(tasks, columns, caption)


def pairs_table(tasks: Sequence[TaskResults]) -> Table:
    """Every two arms at every point: the mean difference over common seeds, its interval, and what each seed said."""
    several = len(tasks) > 1
    sections = tuple(tuple(_pair_line(task, point, found, i == 0, several) for i, found in enumerate(task.pairs(point)))
                     for task in tasks for point in task.labels)  # fmt: skip
    headings = (*(("task",) if several else ()), "removed", "arm", "against", "difference", "95 % interval", "better on",
                "can be told apart")  # fmt: skip
    caption = (
        "Difference: arm minus rival, mean ± standard error over the seeds both have. Interval: Student's t, from three seeds "
        "on. Of intervals of equal arms one in twenty leaves out 0 by chance."
    )
    return Table(headings, tuple(section for section in sections if section), left=3 + several, caption=caption)


def layers_table(tasks: Sequence[TaskResults]) -> Table:
    """The share removed of every layer, mean over seeds. A line per task, point, arm and layer, so one form fits all models."""
    several = len(tasks) > 1
    sections = []
    for task in tasks:
        for entry in task.entries:
            if shows_layers(entry):
                head = (*((task.name,) if several else ()), str(entry.point), entry.arm)
                sections.append(tuple((*(head if i == 0 else ("",) * len(head)), name, f"{size:,}", f"{100 * removed:.2f}")
                                      for i, (name, size, removed) in enumerate(layers(entry))))  # fmt: skip
    headings = (*(("task",) if several else ()), "removed", "arm", "layer", "weights", "removed, %")
    caption = "Mean over seeds. Arms that take over another arm's counts are left out: theirs are the same."
    return Table(headings, tuple(section for section in sections if section), left=3 + several, caption=caption)


def layer_matrix(task: TaskResults, point: str) -> Table:
    """As :func:`layers_table` for one point: a line per layer, a column per arm."""
    entries = [entry for entry in task.at(point) if shows_layers(entry)]
    removed = {entry.arm: {name: part for name, _, part in layers(entry)} for entry in entries}
    sizes = {name: size for entry in entries for name, size, _ in layers(entry)}
    lines = tuple((name, f"{size:,}", *(_number(removed[entry.arm].get(name), "{:.1f}", 100) for entry in entries))
                  for name, size in sizes.items())  # fmt: skip
    return Table(("layer", "weights", *(entry.arm for entry in entries)), (lines,))


def records(tasks: Sequence[TaskResults]) -> list[dict[str, Any]]:
    """The tables as numbers, a dictionary per task, arm and point; None where there is nothing to say."""
    return [_record(task, entry) for task in tasks for entry in task.entries]


def shows_layers(entry: Entry) -> bool:
    """Whether the layers of ``entry`` are pruned, and not by the counts of another arm."""
    return entry.rows[0].get("sparsity") is not None and entry.role not in MASKED and bool(entry.rows[0].get("layers"))


def layers(entry: Entry) -> list[tuple[str, int, float]]:
    """Name, size and share removed (mean over seeds) of every layer."""
    found: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for layer in (layer for row in entry.rows for layer in row["layers"]):
        sizes[layer["name"]] = layer["size"]
        found.setdefault(layer["name"], []).append(1 - layer["kept"] / layer["size"])
    return [(name, sizes[name], sum(parts) / len(parts)) for name, parts in found.items()]


def share(entry: Entry, key: str) -> float | None:
    """``key`` relative to the dense model's, mean over seeds."""
    parts = [row[key] / row[f"dense_{key}"] for row in entry.rows if row.get(key) is not None and row.get(f"dense_{key}")]
    return sum(parts) / len(parts) if parts else None


def latency_ratio(row: Row) -> float | None:
    """Median latency over that of the dense model, both measured in turns; None if it was not measured."""
    taken = row.get("latency")
    return taken["median_s"] / taken["dense_median_s"] if taken else None


def _record(task: TaskResults, entry: Entry) -> dict[str, Any]:
    values = entry.spread("value")
    record: dict[str, Any] = {
        "task": task.name, "arm": entry.arm, "protocol": entry.rows[0]["protocol"], "point": entry.point,
        "metric": task.metric.title, "direction": "higher" if task.metric.higher_is_better else "lower",
        "seeds": list(entry.seeds), "values": list(values.values), "mean": values.mean, "standard_error": values.error,
    }  # fmt: skip
    for role in ("dense", "small-dense", "random"):
        found = task.against(entry, role)
        name = f"vs_{role.replace('-', '_')}"
        record[name] = found.differences.mean if found else None
        record[f"{name}_standard_error"] = found.differences.error if found else None
        record[f"{name}_seeds"] = len(found.seeds) if found else 0
    keys = ("before", "start", "sparsity", "steps", "cost_steps", "parameters", "nonzero", "bytes", "multiply_adds")
    record.update({key: entry.mean(key) for key in keys})
    record["bytes_share"], record["multiply_adds_share"] = share(entry, "bytes"), share(entry, "multiply_adds")
    record["latency_ratio"] = _median(entry, latency_ratio)
    return record


def _table(tasks: Sequence[TaskResults], columns: Sequence[_Column], caption: str) -> Table:
    several = len(tasks) > 1
    sections = []
    for task in tasks:
        for label in (None, *task.labels):
            lines: list[tuple[str, ...]] = []
            for entry in (entry for entry in task.entries if entry.point == label):
                first = not lines
                head = ((task.name if first else "",) if several else ()) + ((label or NONE) if first else "", entry.arm)
                lines.append((*head, *(column.cell(task, entry) for column in columns)))
            sections.append(tuple(lines))
    headings = (*(("task",) if several else ()), "removed", "arm", *(column.heading for column in columns))
    return Table(headings, tuple(section for section in sections if section), left=2 + several, caption=caption)


_BYTES = _Column("bytes", lambda task, entry: _number(entry.mean("bytes"), "{:,.0f}"))
_SEEDS = _Column("seeds", lambda task, entry: str(len(entry.seeds)))


def _quality(tasks: Sequence[TaskResults]) -> _Column:
    return _Column(_heading(tasks), lambda task, entry: task.metric.show(entry.spread("value")))


def _rival(role: str) -> _Column:
    return _Column(f"vs {role}", lambda task, entry: _against(task, entry, role))


def _heading(tasks: Sequence[TaskResults]) -> str:
    headings = {task.metric.heading for task in tasks}
    if len(headings) == 1:
        return headings.pop()
    return "quality (" + "; ".join(f"{task.name}: {task.metric.heading}" for task in tasks) + ")"


def _against(task: TaskResults, entry: Entry, role: str) -> str:
    found = task.against(entry, role)
    if found is None:
        return NONE
    return task.metric.show_difference(found.differences) + ("" if found.whole else f" (n = {len(found.seeds)})")


def _before(task: TaskResults, entry: Entry) -> str:
    values = [row["before"] for row in entry.rows if row.get("before") is not None]
    return task.metric.show(Spread(tuple(values))) if values else NONE


def _pair_line(task: TaskResults, point: str, found: Pair, first: bool, several: bool) -> tuple[str, ...]:
    low_high = "–" if found.interval is None else " to ".join(signed(task.metric, edge) for edge in found.interval)
    head = ((task.name if first else "",) if several else ()) + (point if first else "", found.ours.arm, found.theirs.arm)
    return (*head, task.metric.show_difference(found.differences), low_high, f"{found.wins} of {len(found.seeds)}",
            "yes" if found.clear else "no")  # fmt: skip


def signed(metric: Metric, value: float) -> str:
    """A single difference in the metric's unit, with its sign."""
    return metric.show_difference(Spread((value,)))


def _number(value: float | None, shape: str, scale: float = 1.0) -> str:
    return NONE if value is None else shape.format(value * scale)


def _median(entry: Entry, of: Callable[[Row], float | None]) -> float | None:
    values = [value for row in entry.rows if (value := of(row)) is not None]
    return statistics.median(values) if values else None


def _latency(key: str) -> Callable[[Row], float | None]:
    return lambda row: row["latency"][key] if row.get("latency") else None


def _latency_spread(row: Row) -> float | None:
    taken = row.get("latency")
    return taken["iqr_s"] / taken["dense_median_s"] if taken else None


def _seconds(key: str) -> Callable[[Row], float | None]:
    return lambda row: (row.get("seconds") or {}).get(key)
