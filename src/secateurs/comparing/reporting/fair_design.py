"""Checks of the checklist on what was compared: baselines, points, tasks, data, sizes, and what the seeds can tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from secateurs.comparing.reporting.finding import NOTE, PASSED, WARNING, Finding, label, said, where
from secateurs.comparing.reporting.points import Gathered
from secateurs.comparing.reporting.words import count, listed
from secateurs.report.rows import Row

__all__ = ["amounts", "baselines", "held_out", "noise", "points", "sizes", "tasks"]

ENOUGH_POINTS, ENOUGH_TASKS = 5, 3
_COARSE = 1.25  # a same-size model this much larger is no longer of the same size


def baselines(gathered: Gathered) -> Iterator[Finding]:
    """The dense model trained on, a dense model of the same size, and random pruning belong beside every point."""
    missing = False
    for task in gathered.tasks:
        if task.dense is None:
            missing = True
            yield Finding(WARNING, f"'{task.name}' has no dense model trained for as long: nothing says what pruning costs.")
        for role, meaning in (("small-dense", "dense model of the same size"), ("random", "random pruning")):
            if lacking := [point for point in task.labels if task.baseline(role, point) is None]:
                missing = True
                yield Finding(WARNING, f"'{task.name}' has no {meaning} at {listed(lacking)}.")
    if not missing and gathered.tasks:
        yield Finding(PASSED, "The dense model, a dense model of the same size and random pruning stand beside every point.")


def held_out(gathered: Gathered) -> Iterator[Finding]:
    """The metric must be taken on data the model was not trained on."""
    for task in gathered.tasks:
        if any(row.get("tests_on_training_data") or row.get("split") == "train" for row in task.rows):
            yield Finding(WARNING, f"The metric of '{task.name}' is measured on training data: it says nothing of new data.")
        elif len(splits := sorted({str(row.get("split")) for row in task.rows})) > 1:
            yield Finding(WARNING, f"The runs of '{task.name}' were measured on different data: {listed(splits)}.")
        else:
            yield Finding(PASSED, f"'{task.name}' is measured on '{splits[0]}' after the last step, never where it was best.")


def points(gathered: Gathered) -> Iterator[Finding]:
    """One point is no curve: methods cross."""
    for task in gathered.tasks:
        n = len(task.labels)
        if n == 1:
            yield Finding(WARNING, f"'{task.name}' has a single operating point, {task.labels[0]}: methods may change "
                                   f"places at another. {ENOUGH_POINTS} are asked for.")  # fmt: skip
        elif n < ENOUGH_POINTS:
            yield Finding(NOTE, f"'{task.name}' has {count(n, 'operating point')}; {ENOUGH_POINTS} make a curve one can read.")
        else:
            yield Finding(PASSED, f"'{task.name}' has {count(n, 'operating point')}.")


def tasks(gathered: Gathered) -> Iterator[Finding]:
    """What holds on one data set with one model need not hold on another."""
    pairs = {tuple(str(said(task.rows[0], "task").get(key, task.name)) for key in
                   ("model", "model_options", "data", "data_options")) for task in gathered.tasks}  # fmt: skip
    if len(pairs) == 1:
        yield Finding(WARNING, f"There is one pair of data and model: nothing here carries over to others. {ENOUGH_TASKS} are "
                               "asked for.")  # fmt: skip
    elif pairs:
        level = NOTE if len(pairs) < ENOUGH_TASKS else PASSED
        yield Finding(level, f"There are {len(pairs)} pairs of data and model; at least {ENOUGH_TASKS} are asked for.")


def sizes(gathered: Gathered) -> Iterator[Finding]:
    """The same-size rival must not be smaller than what it is compared with; much larger is worth knowing."""
    for task in gathered.tasks:
        smaller: list[str] = []
        coarse: list[str] = []
        rivals = [(point, task.baseline("small-dense", point)) for point in task.labels]
        for point, rival in ((point, rival) for point, rival in rivals if rival):
            size = rival.mean("bytes") or 0.0
            others = [(e, e.mean("bytes") or 0.0) for e in task.at(point) if e.pruned or e.role == "random"]
            smaller += [f"{size:,.0f} bytes against {b:,.0f} of {label(e)}" for e, b in others if size < b]
            if others and size > _COARSE * max(b for _, b in others):
                coarse.append(f"{size / max(b for _, b in others):.2g} times at {point}")
        if smaller:
            yield Finding(WARNING, f"The same-size dense model of '{task.name}' is the smaller one: {listed(smaller, 4)}.")
        if coarse:
            yield Finding(NOTE, f"The same-size dense model of '{task.name}' takes more bytes than any pruned one, "
                                f"{listed(coarse)}: its widths are coarse.")  # fmt: skip
        if not smaller and any(rival for _, rival in rivals):
            yield Finding(PASSED, f"The same-size dense model of '{task.name}' has at least the bytes of every pruned one.")


def amounts(gathered: Gathered) -> Iterator[Finding]:
    """What was asked for must have been removed; rounding costs at most a weight per layer."""
    off = False
    for task in gathered.tasks:
        for entry in task.entries:
            gaps = [gap for row in entry.rows if (gap := _gap(row)) is not None]
            allowed = max(1, len(entry.rows[0].get("layers") or ()))
            if gaps and round(max(gaps)) > allowed:
                off = True
                asked = said(entry.rows[0], "point")
                yield Finding(WARNING, f"{where(task, entry)} does not remove what was asked for "
                                       f"({_amount(asked)}): off by up to {count(round(max(gaps)), 'weight')}.")  # fmt: skip
    if not off:
        yield Finding(PASSED, "Every pruned model has the sparsity asked for, to a weight per layer.")


def noise(gathered: Gathered) -> Iterator[Finding]:
    """What the seeds cannot tell apart is not ranked."""
    for task in gathered.tasks:
        pairs = [found for point in task.labels for found in task.pairs(point)]
        unclear = sum(not found.clear for found in pairs)
        if pairs:
            text = (f"{unclear} of {len(pairs)} pairs of arms at one point of '{task.name}' cannot be told apart and are not "
                    "ranked: their 95 % interval over paired seeds includes 0, or there is none.")  # fmt: skip
            yield Finding(NOTE if unclear else PASSED, text)


def _gap(row: Row) -> float | None:
    """By how many weights a row misses the amount asked for; None where none was asked."""
    asked = said(row, "point")
    if row.get("sparsity") is None:
        return None
    if asked.get("sparsity") is not None:
        return abs(row["kept"] - (1 - asked["sparsity"]) * row["selected"])
    if asked.get("compression") is not None:
        return abs(row["parameters"] - row["selected"] + row["kept"] - row["parameters"] / asked["compression"])
    return None


def _amount(asked: Mapping[str, Any]) -> str:
    if asked.get("sparsity") is not None:
        return f"{100 * asked['sparsity']:.10g} % of the selected weights"
    return f"a network {asked['compression']:g} times smaller"
