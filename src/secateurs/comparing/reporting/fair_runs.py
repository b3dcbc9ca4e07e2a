"""Checks of the checklist on how the runs were made: nothing but the method may differ between runs that are compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from secateurs.comparing.reporting.finding import NOTE, PASSED, WARNING, Finding, label, said, where
from secateurs.comparing.reporting.points import Entry, Gathered, TaskResults
from secateurs.comparing.reporting.words import count, differing, listed, quoted
from secateurs.comparing.spec import MASKED
from secateurs.report.rows import Spread

__all__ = ["budgets", "failed", "seeds", "settings", "starts", "surroundings"]

ENOUGH_SEEDS = 3


def failed(gathered: Gathered) -> Iterator[Finding]:
    """Runs that are missing because they failed."""
    by_error: dict[str, list[str]] = {}
    for row in gathered.failures:
        error = row.get("error") or {}
        by_error.setdefault(f"{error.get('type')}: {_line(error.get('message'))}", []).append(str(row.get("run")))
    for error, names in by_error.items():
        yield Finding(WARNING, f"{count(len(names), 'run')} failed with {error} ({quoted(names, most=3)}).")
    if not gathered.failures:
        yield Finding(PASSED, f"None of the {count(len(gathered.rows), 'run')} failed.")


def settings(gathered: Gathered) -> Iterator[Finding]:
    """A task, or an arm at a point, whose rows come from different settings."""
    found = False
    for task in gathered.tasks:
        if changed := _differing_keys([said(row, "task") for row in task.rows]):
            found = True
            yield Finding(WARNING, f"The settings of task '{task.name}' differ between its runs: {listed(changed)}.")
        for entry in task.entries:
            if changed := _differing_keys([said(row, "arm") for row in entry.rows]):
                found = True
                yield Finding(WARNING, f"The settings of {where(task, entry)} differ between its seeds: {listed(changed)}.")
    if not found:
        yield Finding(PASSED, "All runs of a task share its settings, and all seeds of an arm the arm's.")


def budgets(gathered: Gathered) -> Iterator[Finding]:
    """Steps and batch size differ between arms of a point; ``scratch-b`` has more steps on purpose."""
    fair = True
    for task in gathered.tasks:
        plain = [entry for entry in task.entries if entry.role != "scratch-b"]
        for text, labels in _over_points(task, plain):
            fair = False
            yield Finding(WARNING, f"The training budgets differ {_at(task, labels)}: {text}.")
        yield from _longer(task, plain)
        yield from _masks_of_others(task)
    if fair and gathered.tasks:
        yield Finding(PASSED, "All arms of a task have the same budget of steps and the same batch size (scratch-b apart).")


def _longer(task: TaskResults, plain: Sequence[Entry]) -> Iterator[Finding]:
    longest = max((_steps(entry) for entry in task.entries if entry.role == "scratch-b"), default=0)
    others = max(map(_steps, plain), default=0)
    if longest > others:
        yield Finding(NOTE, f"Scratch-B is meant to train longer, for equal compute: on '{task.name}' up to {longest:,} steps "
                            f"where the others have {others:,}.")  # fmt: skip


def _masks_of_others(task: TaskResults) -> Iterator[Finding]:
    """What an arm's training cost leaves out: its masks were found by training another arm."""
    arms = {entry.arm: str(entry.rows[0].get("of")) for entry in task.entries if entry.role in MASKED}
    if arms:
        yield Finding(NOTE, f"The training cost of {quoted(arms)} on '{task.name}' is of their own steps; finding their masks "
                            f"has the cost of {quoted(dict.fromkeys(arms.values()))}, which comes on top.")  # fmt: skip


def seeds(gathered: Gathered) -> Iterator[Finding]:
    """Few seeds, or not the same ones."""
    for task in gathered.tasks:
        every = set[int]().union(*(entry.seeds for entry in task.entries))
        if len(every) < ENOUGH_SEEDS:
            yield Finding(WARNING, f"'{task.name}' has {count(len(every), 'seed')}: differences cannot be told from chance. "
                                   f"At least {ENOUGH_SEEDS} are asked for.")  # fmt: skip
        missing: dict[tuple[int, ...], list[str]] = {}
        for entry in task.entries:
            if lacks := tuple(sorted(every - set(entry.seeds))):
                missing.setdefault(lacks, []).append(label(entry))
        for lacking, arms in missing.items():
            yield Finding(WARNING, f"Not all arms have the same seeds on '{task.name}': {listed(arms, most=4)} without "
                                   f"{'seed' if len(lacking) == 1 else 'seeds'} {listed(lacking)}.")  # fmt: skip
        if len(every) >= ENOUGH_SEEDS and not missing:
            yield Finding(PASSED, f"Every arm of '{task.name}' has the same {count(len(every), 'seed')}.")


def starts(gathered: Gathered) -> Iterator[Finding]:
    """All arms of a seed must begin with the same dense model."""
    for task in gathered.tasks:
        by_seed: dict[Any, dict[float, dict[str, None]]] = {}
        for row in (row for entry in task.entries for row in entry.rows if row.get("start") is not None):
            by_seed.setdefault(row["seed"], {}).setdefault(row["start"], {})[row["arm"]] = None
        unequal = {seed: values for seed, values in by_seed.items() if len(values) > 1}
        for seed, values in unequal.items():
            text = differing([(task.metric.show(Spread((value,))), list(arms)) for value, arms in values.items()])
            yield Finding(WARNING, f"The arms of '{task.name}' begin with different dense models at seed {seed}: {text}.")
        if by_seed and not unequal:
            yield Finding(PASSED, f"All arms of '{task.name}' begin with the same dense model of their seed.")


def surroundings(gathered: Gathered) -> Iterator[Finding]:
    """Versions, threads, devices and code must not differ between the runs compared."""
    found = False
    rows = gathered.rows
    everything = {"threads": [row.get("threads") for row in rows], "the device": [row.get("device") for row in rows]}
    for library in sorted({name for row in rows for name in row.get("versions") or ()}):
        everything[f"the version of {library}"] = [(row.get("versions") or {}).get(library) for row in rows]
    for task in gathered.tasks:
        for name in sorted({name for row in task.rows for name in row.get("code") or ()}):
            everything[f"the code of {name} of '{task.name}'"] = [(row.get("code") or {}).get(name) for row in task.rows]
    for what, values in everything.items():
        if len(tally := _tally(values)) > 1:
            found = True
            text = "; ".join(f"{value} in {count(n, 'run')}" for value, n in tally.items())
            yield Finding(WARNING, f"Not the same for all runs: {what}: {text}.")
    if not found and rows:
        yield Finding(PASSED, "All runs share versions of libraries, threads, device and code.")


def _steps(entry: Entry) -> int:
    return max(row["steps"] + row["inherited_steps"] for row in entry.rows)


def _budget(entry: Entry) -> str:
    had = [f"{row['steps'] + row['inherited_steps']:,} steps in batches of {row.get('batch')}" for row in entry.rows]
    return listed(dict.fromkeys(had))


def _over_points(task: TaskResults, entries: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """Where entries of a point and the dense model differ in budget: what to say, and at which points it is the same."""
    found: dict[str, list[str]] = {}
    for point in task.labels:
        groups: dict[str, list[str]] = {}
        for entry in entries:
            if entry.point in (None, point):
                groups.setdefault(_budget(entry), []).append(entry.arm)
        if len(groups) > 1:
            found.setdefault(differing(list(groups.items())), []).append(point)
    return list(found.items())


def _at(task: TaskResults, labels: Sequence[str]) -> str:
    return f"at {'every point' if list(labels) == task.labels and len(labels) > 1 else listed(labels)} of '{task.name}'"


def _differing_keys(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    settings = list(settings)
    keys = sorted({key for setting in settings for key in setting})
    return [key for key in keys if any(setting.get(key) != settings[0].get(key) for setting in settings)]


def _tally(values: Iterable[Any]) -> dict[Any, int]:
    """How often each value occurs; a row that does not say has no vote."""
    tally: dict[Any, int] = {}
    for value in (value for value in values if value is not None):
        tally[value] = tally.get(value, 0) + 1
    return tally


def _line(text: object) -> str:
    """The first line of an error's message, not all of a traceback."""
    lines = str(text).strip().splitlines()
    return lines[0][:300] if lines else "(no message)"
