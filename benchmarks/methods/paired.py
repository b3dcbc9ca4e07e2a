"""Tables of paired seeds: every arm beside a base, the difference seed by seed, its mean and its standard error."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secateurs.comparing.store import read_rows
from secateurs.report import Table

__all__ = ["Extra", "by_arm", "mean_and_error", "paired_table"]

Row = Mapping[str, Any]
Extra = Callable[[Sequence[Row]], str]
"""What a column says of the rows of an arm at a point, one for each seed."""


def mean_and_error(values: Sequence[float], digits: int = 2, sign: bool = False) -> str:
    """``mean ± standard error``; the value alone where there is one; nothing where there is none."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):{'+' if sign else ''}.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"


def by_arm(rows: Sequence[Row], base: str, value: Callable[[Row], float], arm: str = "arm") -> dict[str, tuple[str, str]]:
    """Arm -> mean and error of its values, and of their differences to ``base`` over the seeds that both have."""
    found: dict[str, dict[Any, float]] = {}
    for row in rows:
        found.setdefault(row[arm], {})[row["seed"]] = value(row)
    beside = found.get(base, {})
    return {name: (mean_and_error(list(values.values())),
                   "" if name == base else mean_and_error([values[s] - beside[s] for s in values if s in beside], sign=True))
            for name, values in found.items()}  # fmt: skip


def paired_table(path: Path, base: str, extras: Mapping[str, Extra] | None = None) -> str:
    """Of the rows of a comparison in ``path``: a table per task, as Markdown, beside the arm ``base``.

    ``extras`` are further columns. The dense arm, which has no point, comes first and beside every point.
    """
    rows = [row for row in read_rows(path)[0] if row["status"] == "done" and row["protocol"] != "start"]
    return "\n".join(_task(task, [row for row in rows if row["task"] == task], base, extras or {})
                     for task in dict.fromkeys(row["task"] for row in rows))  # fmt: skip


def _task(task: str, rows: Sequence[Row], base: str, extras: Mapping[str, Extra]) -> str:
    first = rows[0]
    scale = 100 if first["percent"] else 1
    unit = f"{first['metric'].rpartition(':')[2]}{', %' if first['percent'] else ''}"
    sections = []
    for point in sorted({row["point"] for row in rows}, key=lambda label: (label is not None, str(label))):
        at = [row for row in rows if row["point"] == point]
        dense = [row for row in rows if row["point"] is None and point is not None]
        found = by_arm([*at, *dense], base, lambda row: scale * row["value"])
        own = [name for name in found if any(row["arm"] == name for row in at)]
        sections.append(tuple(
            (point or "", name, *found[name], *(say([row for row in at if row["arm"] == name]) for say in extras.values()))
            for name in own))  # fmt: skip
    table = Table(("removed", task, unit, f"against {base}", *extras), tuple(sections), left=2)
    seeds = len({row["seed"] for row in rows})
    said = f"Mean ± standard error over {seeds} seeds; differences are seed by seed, {first['direction']} is better."
    return f"{table.markdown()}\n{said}\n"
