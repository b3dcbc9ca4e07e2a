"""Does one scaling law fit dense and sparse pre-training? Fitted to dense runs, judged by the sparse ones it has not seen.

Source: Jin et al. 2025, The Journey Matters. A run is a row of a table: its selected weights, the mean share of them in use
over training, its tokens and its loss.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from secateurs.core.scaling import ScalingLaw, fit_scaling
from secateurs.errors import BadInput, near
from secateurs.report import Table

__all__ = ["NEEDED", "OPTIONAL", "READINGS", "Grown", "ScalingOutcome", "read_runs"]

NEEDED = ("parameters", "tokens", "loss")
OPTIONAL = ("average_density", "density")
READINGS = {"average": "on average", "final": "in the end", "dense": "before pruning"}  # of N


@dataclass(frozen=True)
class Grown:
    """A training run.

    Attributes:
        label: what it is called; runs of one label, size and length are repetitions.
        parameters: weights of the dense model.
        tokens: seen in training.
        loss: of the trained model.
        average_density: mean share of the weights in use over the tokens; 1 for a dense run.
        density: share left in the end.
    """

    label: str
    parameters: float
    tokens: float
    loss: float
    average_density: float = 1.0
    density: float = 1.0

    @property
    def dense(self) -> bool:
        """Whether nothing was pruned at any time."""
        return self.average_density == self.density == 1

    def size(self, reading: str) -> float:
        """N by one of :data:`READINGS`."""
        return self.parameters * {"average": self.average_density, "final": self.density, "dense": 1.0}[reading]


def read_runs(path: str | Path) -> list[Grown]:
    """The runs of a ``.csv`` or ``.jsonl`` file with at least :data:`NEEDED`; other columns are passed over.

    Raises:
        BadInput: not readable, no such column, or a value that cannot be; the file and the line are quoted.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"results {str(path)!r} cannot be read: {error}") from error
    if path.suffix not in (".csv", ".jsonl"):
        raise BadInput(f"results {str(path)!r}: give a .csv or a .jsonl file")
    rows = _csv(text) if path.suffix == ".csv" else _jsonl(text, str(path))
    found = [_run(row, f"{str(path)!r}, line {line}") for line, row in rows]
    if not found:
        raise BadInput(f"results {str(path)!r} hold no run")
    return found


class ScalingOutcome:
    """What the runs say.

    Attributes:
        law: fitted to the dense runs alone.
        joint: fitted to all runs, sparse ones by their average size; None where there are no sparse ones.

    Raises:
        BadInput: the dense runs do not settle a law.
    """

    def __init__(self, runs: Sequence[Grown]):
        self.runs = list(runs)
        self.dense = [run for run in runs if run.dense]
        self.sparse = [run for run in runs if not run.dense]
        try:
            self.law = _fitted(self.dense)
        except BadInput as error:
            raise BadInput(f"the dense runs, those with density and average_density 1 (or without): {error}") from error
        self.joint = _fitted(self.runs) if self.sparse else None

    def errors(self, runs: Iterable[Grown], reading: str = "average", law: ScalingLaw | None = None) -> list[float]:
        """Of every run, its predicted loss over its measured one less 1, with N by ``reading``."""
        law = law or self.law
        return [law(run.size(reading), run.tokens) / run.loss - 1 for run in runs]

    @cached_property
    def groups(self) -> list[list[Grown]]:
        """Repetitions together, dense ones first, then by density, label, size and length."""
        found: dict[Any, list[Grown]] = {}
        for run in self.runs:
            alike = (run.label, run.parameters, run.tokens, run.density, round(run.average_density, 6))
            found.setdefault(alike, []).append(run)
        return sorted(found.values(), key=lambda g: (not g[0].dense, -g[0].density, g[0].label, g[0].parameters, g[0].tokens))

    def mean_error(self, runs: Sequence[Grown], reading: str = "average", law: ScalingLaw | None = None) -> float:
        """Mean over ``runs`` of the absolute error."""
        return statistics.fmean(map(abs, self.errors(runs, reading, law)))

    def law_table(self) -> Table:
        """The five numbers, of the dense fit and of the joint one."""
        fits = [("dense runs", self.law, self.dense)] + ([("all runs", self.joint, self.runs)] if self.joint else [])
        lines = tuple((name, str(len(runs)), *(f"{value:.4g}" for value in asdict(law).values()),
                       f"{100 * self.mean_error(runs, law=law):.2f} %") for name, law, runs in fits)  # fmt: skip
        headings = ("fitted to", "runs", *ScalingLaw.__dataclass_fields__, "mean error")
        return Table(headings, (lines,), caption="L = E + A / N^alpha + B / D^beta, N averaged over the tokens of a run.")

    def table(self) -> Table:
        """A line per group: size, length, loss, and what the dense law predicts with N read in each way."""
        by = (f"by N {words}" for words in READINGS.values())
        headings = ("runs", "weights", "left", "on average", "tokens", "loss", *by)
        dense = tuple(self._line(group) for group in self.groups if group[0].dense)
        sparse = tuple(self._line(group) for group in self.groups if not group[0].dense)
        caption = "The last columns: the loss that the law of the dense runs predicts, against the measured one."
        return Table(headings, (dense, sparse) if sparse else (dense,), caption=caption)

    def _line(self, group: list[Grown]) -> tuple[str, ...]:
        first, losses = group[0], [run.loss for run in group]
        spread = f" ± {statistics.stdev(losses):.4f}" if len(group) > 1 else ""
        said = [f"{100 * statistics.fmean(self.errors(group, reading)):+.2f} %" for reading in READINGS]
        if first.dense:
            said[1:] = [""] * (len(READINGS) - 1)  # all readings are one
        return (first.label, _short(first.parameters), f"{100 * first.density:.3g} %", f"{100 * first.average_density:.3g} %",
                _short(first.tokens), f"{statistics.fmean(losses):.4f}{spread}", *said)  # fmt: skip

    def sentences(self) -> list[str]:
        """What the numbers say, most important first."""
        fit = (f"The law fits its {len(self.dense)} dense runs to {100 * self.mean_error(self.dense):.2f} % of their loss "
               "(mean absolute error).")  # fmt: skip
        if not self.sparse or not self.joint:
            return [fit, "No run is sparse: there is nothing to judge it by that it has not seen."]
        by = {reading: self.mean_error(self.sparse, reading) for reading in READINGS}
        best = min(by, key=lambda reading: by[reading])
        listed = ", ".join(f"{100 * error:.2f} % with N {READINGS[reading]}" for reading, error in by.items())
        verdict = ("the average size predicts best" if best == "average" else
                   f"here the size {READINGS[best]} predicts better than the average one")  # fmt: skip
        joint = f"Fitted to all runs at once, the law is off by {100 * self.mean_error(self.runs, law=self.joint):.2f} %."
        unseen = f"The loss of {len(self.sparse)} sparse runs, which it has not seen, is predicted to {listed}: {verdict}."
        return [fit, unseen, joint]

    def to_dict(self) -> dict[str, Any]:
        """Everything found, as JSON-able data."""
        sparse = {reading: self.mean_error(self.sparse, reading) for reading in READINGS} if self.sparse else None
        return {"law": asdict(self.law), "joint": asdict(self.joint) if self.joint else None,
                "mean_error": {"dense": self.mean_error(self.dense), "sparse": sparse,
                               "joint": self.mean_error(self.runs, law=self.joint) if self.joint else None},
                "runs": [{**asdict(run), **{f"error_{r}": self.errors([run], r)[0] for r in READINGS}}
                         for run in self.runs]}  # fmt: skip


def _fitted(runs: Sequence[Grown]) -> ScalingLaw:
    return fit_scaling([run.size("average") for run in runs], [run.tokens for run in runs], [run.loss for run in runs])


def _csv(text: str) -> list[tuple[int, Mapping[str, Any]]]:
    return [(number, row) for number, row in enumerate(csv.DictReader(text.splitlines()), 2)]


def _jsonl(text: str, path: str) -> list[tuple[int, Mapping[str, Any]]]:
    found: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"results {path!r}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadInput(f"results {path!r}, line {number}: a {type(row).__name__}, not a mapping of columns to values")
        found.append((number, row))
    return found


def _run(row: Mapping[str, Any], where: str) -> Grown:
    for key in NEEDED:
        if row.get(key) in (None, ""):
            raise BadInput(f"results {where}: there is no {key!r}; a run has {', '.join(NEEDED)}, and if it is sparse "
                           f"{' and '.join(OPTIONAL)}" + near(key, [str(name) for name in row]))  # fmt: skip
    sizes = [_positive(key, row[key], where) for key in NEEDED]
    shares = [_share(key, row.get(key), where) for key in OPTIONAL]
    return Grown(str(row.get("label") or "run"), *sizes, *shares)


def _positive(key: str, said: Any, where: str) -> float:
    value = _number(said)
    if not 0 < value < math.inf:
        raise BadInput(f"results {where}: {key}={said!r} is not a number above 0")
    return value


def _share(key: str, said: Any, where: str) -> float:
    value = 1.0 if said in (None, "") else _number(said)
    if not 0 < value <= 1:
        raise BadInput(f"results {where}: {key}={said!r} is not a share above 0 and up to 1")
    return value


def _number(said: Any) -> float:
    try:
        return math.nan if isinstance(said, bool) else float(said)
    except (TypeError, ValueError):
        return math.nan


def _short(value: float) -> str:
    """Three digits and a letter: 153k, 1.2M."""
    for letter, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"
