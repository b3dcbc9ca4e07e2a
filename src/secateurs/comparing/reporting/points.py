"""From rows to points: one arm at one operating point of a task over its seeds, and differences paired over seeds.

Everything is computed from the raw values of the rows; nothing a row says of another row is taken over.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from secateurs.report.rows import Metric, Row, Spread, group, spread, verdict

__all__ = ["Entry", "Gathered", "Pair", "TaskResults", "gather", "newest", "pair", "points_of"]

_RANKS = {"dense": 0, "small-dense": 1, "random": 2, "prune": 3, "iterative": 4, "tickets": 5}


@dataclass(frozen=True)
class Entry:
    """One arm at one operating point of one task: a row per seed, by ascending seed."""

    rows: tuple[Row, ...]

    @property
    def arm(self) -> str:
        """The arm's name."""
        return str(self.rows[0]["arm"])

    @property
    def point(self) -> str | None:
        """The operating point's label; None for the dense model."""
        return self.rows[0].get("point")

    @property
    def role(self) -> str:
        """The protocol, but ``"random"`` for the arm that prunes at random: a baseline, as dense and small-dense are."""
        protocol = str(self.rows[0]["protocol"])
        return "random" if protocol == "prune" and self.rows[0].get("method") == "random" else protocol

    @property
    def pruned(self) -> bool:
        """Whether this is something a reader compares, rather than one of the three baselines."""
        return self.role not in ("dense", "small-dense", "random")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the rows."""
        return tuple(row["seed"] for row in self.rows)

    def spread(self, key: str) -> Spread:
        """The values of ``key``, seed by seed."""
        return spread(self.rows, key)

    def mean(self, key: str) -> float | None:
        """The mean of ``key`` over the seeds that have it; None if none has."""
        values = [row[key] for row in self.rows if row.get(key) is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Pair:
    """Two entries compared: the differences, ours minus theirs, of the seeds both have."""

    ours: Entry
    theirs: Entry
    metric: Metric
    seeds: tuple[int, ...]
    differences: Spread

    @property
    def signs(self) -> tuple[int, ...]:
        """For every seed 1 where ours is better, -1 where it is worse, 0 where both are equal."""
        better = 1 if self.metric.higher_is_better else -1
        return tuple(better * ((d > 0) - (d < 0)) for d in self.differences.values)

    @property
    def wins(self) -> int:
        """In how many seeds ours is better."""
        return self.signs.count(1)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean difference by Student's t; None for fewer than three common seeds."""
        return self.differences.interval()

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0. Without an interval nothing is clear."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    @property
    def verdict(self) -> str:
        """``ahead``, ``behind``, ``level`` or ``mixed``: what was seen in every seed."""
        return verdict(self.differences, self.metric)

    @property
    def whole(self) -> bool:
        """Whether both sides have the same seeds, so that no value was left out."""
        return self.ours.seeds == self.theirs.seeds


def pair(ours: Entry, theirs: Entry | None, metric: Metric) -> Pair | None:
    """``ours`` against ``theirs`` over their common seeds; None if there are none."""
    rivals = {row["seed"]: row for row in theirs.rows} if theirs else {}
    common = [row for row in ours.rows if row["seed"] in rivals]
    if theirs is None or not common:
        return None
    differences = Spread(tuple(row[metric.key] - rivals[row["seed"]][metric.key] for row in common))
    return Pair(ours, theirs, metric, tuple(row["seed"] for row in common), differences)


@dataclass(frozen=True)
class TaskResults:
    """All entries of one task. Their order does not depend on the order in which the runs ended."""

    name: str
    metric: Metric
    rows: tuple[Row, ...]
    entries: tuple[Entry, ...]
    """Dense first, then by point, at a point the baselines first."""

    @property
    def labels(self) -> list[str]:
        """Labels of the operating points, from little removed to much."""
        return list(dict.fromkeys(entry.point for entry in self.entries if entry.point is not None))

    @property
    def arms(self) -> list[str]:
        """Names of the arms, baselines first."""
        return list(dict.fromkeys(entry.arm for entry in sorted(self.entries, key=_rank)))

    @property
    def dense(self) -> Entry | None:
        """The dense model trained for as long."""
        return next((entry for entry in self.entries if entry.role == "dense"), None)

    def at(self, point: str) -> list[Entry]:
        """The entries of an operating point."""
        return [entry for entry in self.entries if entry.point == point]

    def baseline(self, role: str, point: str | None) -> Entry | None:
        """The entry of ``dense``, ``small-dense`` or ``random`` at ``point``."""
        if role == "dense":
            return self.dense
        return next((entry for entry in self.entries if entry.role == role and entry.point == point), None)

    def against(self, entry: Entry, role: str) -> Pair | None:
        """``entry`` against a baseline of its point; None where there is none, or it is that baseline."""
        rival = self.baseline(role, entry.point)
        return None if rival is entry else pair(entry, rival, self.metric)

    def pairs(self, point: str) -> list[Pair]:
        """Every two entries of ``point``, once."""
        made = (pair(a, b, self.metric) for a, b in combinations(self.at(point), 2))
        return [found for found in made if found]


@dataclass(frozen=True)
class Gathered:
    """What a report is made of: finished runs by task, and those that failed."""

    tasks: tuple[TaskResults, ...]
    failures: tuple[Row, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Of all tasks, the dense starts among them."""
        return [row for task in self.tasks for row in task.rows]


def gather(rows: Iterable[Row], failures: Iterable[Row] = ()) -> Gathered:
    """Finished rows, each of another run, by task and point."""
    tasks = sorted(group(rows, "task").items())
    return Gathered(tuple(_task(name, members) for name, members in tasks if points_of(members)),
                    tuple(sorted(failures, key=lambda row: str(row.get("run")))))  # fmt: skip


def points_of(rows: Iterable[Row]) -> list[Row]:
    """Without the starts: a start is what other runs begin with, not something compared."""
    return [row for row in rows if row["protocol"] != "start"]


def newest(rows: Sequence[Row], wanted: Container[str] = ()) -> tuple[list[Row], list[Row]]:
    """One row of every (task, arm, point, seed), and the others, of settings since changed.

    The last counts, but one of the ``wanted`` runs before all others: settings may have been changed and changed back.
    """
    chosen: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        before = chosen.get(_place(row))
        if before is None or row["run"] in wanted or before["run"] not in wanted:
            chosen[_place(row)] = row
    kept = [row for row in rows if chosen[_place(row)] is row]
    return kept, [row for row in rows if chosen[_place(row)] is not row]


def _place(row: Row) -> tuple[Any, ...]:
    return row["task"], row["arm"], row["protocol"], row.get("point"), row["seed"]


def _task(name: str, rows: Sequence[Row]) -> TaskResults:
    cells: dict[tuple[str, str | None], list[Row]] = {}
    for row in sorted(points_of(rows), key=lambda row: row["seed"]):
        cells.setdefault((row["arm"], row.get("point")), []).append(row)
    entries = sorted((Entry(tuple(members)) for members in cells.values()), key=lambda e: (_amount(e), *_rank(e)))
    inside = sorted(rows, key=lambda row: (str(row["arm"]), str(row.get("point")), row["seed"]))
    return TaskResults(name, _metric(points_of(rows)), tuple(inside), tuple(entries))


def _rank(entry: Entry) -> tuple[int, str]:
    return _RANKS.get(entry.role, len(_RANKS)), entry.arm


def _amount(entry: Entry) -> tuple[float, str]:
    """How much an entry's point removes, first of all: its place among the points."""
    asked = (entry.rows[0].get("determined_by") or {}).get("point") or {}
    if entry.point is None:
        return -1.0, ""
    if asked.get("compression"):
        return 1 - 1 / asked["compression"], entry.point
    return asked.get("sparsity") or entry.rows[0].get("sparsity") or 0.0, entry.point


def _metric(rows: Sequence[Row]) -> Metric:
    first = rows[0]
    scale = 100.0 if first.get("percent") else 1.0
    largest = max(abs(row["value"]) * scale for row in rows)
    digits = 2 if first.get("percent") else min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest else 2
    return Metric("value", str(first["metric"]), "%" if first.get("percent") else "", scale, digits,
                  higher_is_better=first["direction"] == "higher", standard_error=True)  # fmt: skip
