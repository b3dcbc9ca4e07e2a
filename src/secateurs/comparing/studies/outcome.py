"""What an oracle study found: its sets, how the loss before goes with the result after, and whether the oracle wins."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from secateurs.comparing.reporting.words import count
from secateurs.comparing.store import RESULTS, read_rows
from secateurs.comparing.studies.correlation import Anomaly, Correlation, anomaly, correlations
from secateurs.comparing.studies.spec import STUDY
from secateurs.errors import BadInput
from secateurs.report import Table
from secateurs.report.rows import Metric, Spread

__all__ = ["OracleOutcome", "SetResult", "kept_text"]

TAU, P = 0.2, 0.05  # the published criterion: as strong as this, as unlikely by chance as this, or no correlation
Row = dict[str, Any]


@dataclass(frozen=True)
class SetResult:
    """One set of filters: its loss before retraining, and what its retrainings came to, in the order of ``repeats``."""

    kept: tuple[tuple[int, ...], ...]
    loss_before: float
    repeats: tuple[int, ...]
    values: tuple[float, ...]
    losses_after: tuple[float, ...]

    @property
    def value(self) -> float:
        """Mean of the metric over the repeats."""
        return statistics.fmean(self.values)

    @property
    def loss_after(self) -> float:
        """Mean of the loss over the repeats."""
        return statistics.fmean(self.losses_after)


class OracleOutcome:
    """The results of one oracle study.

    Args:
        rows: of a results file; those of the last study in it count, and those of others are left out with a warning.
        warnings: what was wrong with the file they come from.

    Raises:
        BadInput: there is no finished retraining among them.
    """

    def __init__(self, rows: Iterable[Row], warnings: Sequence[str] = ()):
        rows, self.warnings = list(rows), list(warnings)
        self.failures = [row for row in rows if row["status"] != "done"]
        """The rows of what failed, the dense training among them, each with its ``error``."""
        done = [row for row in rows if row["status"] == "done" and row.get("study") == STUDY]
        if not done:
            errors = dict.fromkeys(f"{row['error']['type']}: {row['error']['message']}" for row in self.failures)
            raise BadInput("the study has no finished retraining" + "".join(f"; {error}" for error in list(errors)[:2]))
        self.rows = [row for row in done if _settings(row) == _settings(done[-1])]
        if others := len(done) - len(self.rows):
            self.warnings.append(f"{count(others, 'retraining')} of other settings in the same file left out")
        if self.failures:
            self.warnings.append(f"{count(len(self.failures), 'run')} failed; the first: {self.failures[0]['run']}: "
                                 f"{self.failures[0]['error']['type']}: {self.failures[0]['error']['message']}")  # fmt: skip
        if len(repeats := sorted({len(s.repeats) for s in self.sets})) > 1:
            self.warnings.append(f"sets have between {repeats[0]} and {repeats[-1]} retrainings")
        if self.first["tests_on_training_data"]:
            self.warnings.append(f"the final metric is taken on training data ({self.first['split']})")
        if len({(str(row["set"]), row["loss_before"]) for row in self.rows}) > len(self.sets):
            self.warnings.append("the loss before retraining differs between repeats of one set: does the task's loss draw "
                                 "random numbers, or were the rows made by other versions or machines?")  # fmt: skip

    @classmethod
    def read(cls, path: str | Path) -> OracleOutcome:
        """From a results file, or a folder that holds ``results.jsonl``. Nothing a row names is imported.

        Raises:
            BadInput: there is no such file, it is not a results file, or it holds no finished retraining.
        """
        path = Path(path)
        return cls(*read_rows(path / RESULTS if path.is_dir() else path))

    @property
    def first(self) -> Row:
        """A row, for what is the same in all of them."""
        return self.rows[0]

    @cached_property
    def sets(self) -> list[SetResult]:
        """By kept filters, so that the order in which runs finished does not matter."""
        found: dict[Any, dict[int, Row]] = {}
        for row in self.rows:
            found.setdefault(tuple(map(tuple, row["set"])), {})[row["repeat"]] = row
        return [_set(kept, dict(sorted(rows.items()))) for kept, rows in sorted(found.items())]

    @property
    def metric(self) -> Metric:
        """How the final metric is shown."""
        row = self.first
        scale, unit, digits = (100.0, "%", 2) if row["percent"] else (1.0, "", 4)
        return Metric("value", row["metric"], unit, scale, digits, higher_is_better=row["direction"] == "higher")

    @cached_property
    def correlations(self) -> dict[str, tuple[Correlation, ...]]:
        """Of the loss before with the final metric, and with the final loss: Kendall, Spearman, Pearson."""
        before = [s.loss_before for s in self.sets]
        return {after: correlations(before, values, self.first["seed"])
                for after, values in ((self.first["metric"], [s.value for s in self.sets]),
                                      ("final loss", [s.loss_after for s in self.sets]))}  # fmt: skip

    @cached_property
    def anomaly(self) -> Anomaly:
        """How many sets came out better than the oracle."""
        values = [s.value for s in self.sets]
        return anomaly([s.loss_before for s in self.sets], values, self.first["direction"] == "higher")

    @property
    def chance(self) -> float | None:
        """Standard error of a set's mean over the repeats; None where sets were retrained once.

        From the repeats' disagreement about the sets: what a repeat (an order of the data) adds to all sets alike is taken
        out, as ranks do not depend on it. Of the sets with all repeats.
        """
        repeats = max(self.sets, key=lambda s: len(s.repeats)).repeats
        values = np.array([s.values for s in self.sets if s.repeats == repeats])
        if min(values.shape) < 2:
            return None
        rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
        return float(np.sqrt((rest**2).sum() / freedom / len(repeats)))

    @property
    def verdict(self) -> str:
        """``"correlated"``, ``"not correlated"``, ``"reversed"`` or ``"undecided"`` (nothing to rank).

        By the published criterion: Kendall's tau between the loss before and a metric of which higher is better is at most
        -0.2, with p at most 0.05; for a metric of which lower is better the sign turns. Reversed is the same the other way
        round.
        """
        kendall = self.correlations[self.first["metric"]][0]
        if kendall.value is None or kendall.p is None:
            return "undecided"
        toward = -kendall.value if self.metric.higher_is_better else kendall.value
        if kendall.p > P or abs(toward) < TAU:
            return "not correlated"
        return "correlated" if toward > 0 else "reversed"

    def table(self) -> Table:
        """Each coefficient with its 95 % interval and p, against the final metric and the final loss."""
        sections = tuple(tuple((f"loss before, {after}" if i == 0 else "", *_cells(c)) for i, c in enumerate(found))
                         for after, found in self.correlations.items())  # fmt: skip
        return Table(("between", "coefficient", "value", "95 % interval", "p"), sections, left=2)

    def sets_table(self) -> Table:
        """The sets from the lowest loss before to the highest."""
        metric, dense = self.metric, self.first["start"]
        lines = []
        for rank, s in enumerate(sorted(self.sets, key=lambda s: s.loss_before)):
            change = metric.show_difference(Spread(tuple(value - dense for value in s.values)))
            shown = (f"{s.loss_before:.4f}", metric.show(Spread(s.values)), change, f"{s.loss_after:.4f}")
            lines.append((kept_text(s.kept), "oracle" if rank == 0 else "", *shown))
        headings = ("filters kept", "", "loss before", f"final {metric.heading}", "vs dense", "final loss")
        return Table(headings, (tuple(lines),), left=2)

    def to_dict(self) -> dict[str, Any]:
        """Everything found, as JSON-able data."""
        first = self.first
        return {"study": first["name"], "task": first["task"], "metric": first["metric"], "direction": first["direction"],
                "dense": first["start"], "verdict": self.verdict, "chance": self.chance,
                "warnings": self.warnings, "failed": len(self.failures),
                "anomaly": {**asdict(self.anomaly), "ratio": self.anomaly.ratio},
                "correlations": {after: [asdict(c) for c in found] for after, found in self.correlations.items()},
                "sets": [{**asdict(s), "value": s.value, "loss_after": s.loss_after} for s in self.sets]}  # fmt: skip


def kept_text(kept: Sequence[Sequence[int]]) -> str:
    """``"0 1 4 / 2 3"``: the filters kept of each layer, cut where the line would be long."""
    text = " / ".join(" ".join(map(str, rows)) for rows in kept)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """What all retrainings of a study have in common."""
    return {key: value for key, value in row["determined_by"].items() if key not in ("kept", "repeat")}


def _set(kept: tuple[tuple[int, ...], ...], rows: Mapping[int, Row]) -> SetResult:
    values, losses = (tuple(float(row[key]) for row in rows.values()) for key in ("value", "loss_after"))
    return SetResult(kept, float(next(iter(rows.values()))["loss_before"]), tuple(rows), values, losses)


def _cells(c: Correlation) -> tuple[str, ...]:
    if c.value is None or c.low is None or c.high is None or c.p is None:
        return c.name, "undefined", "", ""
    return c.name, f"{c.value:+.2f}", f"{c.low:+.2f} to {c.high:+.2f}", "< 0.0001" if c.p < 1e-4 else f"{c.p:.2g}"
