"""A comparison from beginning to end. What is finished is not run again, so it may be killed and started at will."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.comparing.outcome import LAST, Outcome
from secateurs.comparing.processes.board import Board
from secateurs.comparing.processes.jobs import Row, Rows
from secateurs.comparing.processes.workers import work
from secateurs.comparing.recipes import grid
from secateurs.comparing.recipes.recipe import from_dict, read
from secateurs.comparing.running.execute import execute, failed, stored
from secateurs.comparing.running.task import ready
from secateurs.comparing.spec import Comparison, Run
from secateurs.comparing.store import RESULTS, Results
from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.files import write_whole

__all__ = ["Planned", "compare", "comparison_from", "folder_for", "planned"]

Recipe = str | Path | Mapping[str, Any] | Comparison


def compare(
    recipe: Recipe, *, out: str | Path | None = None, jobs: int | None = None, ray: str | None = None, console: Any = None
) -> Outcome:
    """Carry out every run of a comparison that is not done yet, and return what came out.

    One line per run is added to ``results.jsonl`` in ``out`` as soon as the run is over, with its error if it failed; runs
    that failed before are tried again. Interrupted or killed at any moment, the same call goes on: finished runs are kept,
    runs under way go on from their last checkpoint, and the results are the same to the bit.

    Args:
        recipe: a YAML file, the same as a mapping, or a :class:`secateurs.comparing.Comparison`. In the latter two, functions
            may stand for their names; where another process cannot import them, the runs are made in this one.
        out: folder for results, weights and masks; by default ``results/`` and the comparison's name.
        jobs: runs at a time, each in a process of its own; 1 by default.
        ray: instead: address of a Ray cluster, which runs as many as it has CPUs for, or ``"local"``; see
            :func:`secateurs.comparing.processes.on_ray.work_on_ray` for what the nodes must share.
        console: a ``rich.console.Console`` for the progress; standard error by default.

    Raises:
        BadInput: the recipe cannot be carried out, ``out`` belongs to another comparison or is in use, or both ``jobs`` and
            ``ray`` are given.
        MissingExtra: rich, PyYAML or pydantic (extra ``compare``) or Ray (extra ``ray``) is not installed.
    """
    if ray is not None and jobs is not None:
        raise BadInput(f"jobs={jobs} is for processes of this machine; the cluster at ray={ray!r} has its own number")
    console = console or require("rich.console", "compare").Console(stderr=True)
    comparison = comparison_from(recipe)
    folder = folder_for(comparison, out)
    with Results(folder / RESULTS) as results:
        results.check(comparison)
        plan = planned(comparison, folder, results.done())
        warnings = [*results.warnings, *_check_functions(comparison, plan, results.done())]
        for warning in warnings:
            console.print(f"Warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        write_whole(folder / LAST, (json.dumps([run.name for run in plan.runs], indent=0) + "\n").encode())
        _carry_out(plan, results, folder, _Means(jobs or 1, ray, comparison.threads), console)
        names = {run.name for run in plan.runs}
        return Outcome([row for row in results.rows if row["run"] in names], warnings)


def comparison_from(recipe: Recipe) -> Comparison:
    """The comparison that a file, a mapping or a comparison describes.

    Raises:
        BadInput: it cannot be carried out.
    """
    if isinstance(recipe, Comparison):
        return recipe
    return from_dict(recipe) if isinstance(recipe, Mapping) else read(recipe)


def folder_for(comparison: Comparison, out: str | Path | None) -> Path:
    """Where the results of ``comparison`` lie."""
    return Path(out).expanduser() if out is not None else Path("results") / comparison.name


@dataclass(frozen=True)
class Planned:
    """What is to be done of a comparison."""

    runs: tuple[Run, ...]
    """All of them."""
    missing: tuple[Run, ...]
    """Those to carry out, in their order."""


def planned(comparison: Comparison, folder: Path, done: Mapping[str, Row]) -> Planned:
    """What is not in ``done``, and of what is there that whose weights or masks are needed again but gone from ``folder``."""
    runs = grid.runs(comparison)
    missing: list[Run] = []
    wanted: set[str] = set()
    for run in reversed(runs):  # who needs comes before what is needed
        if run.name not in done or (run.name in wanted and not stored(run, folder)):
            missing.insert(0, run)
            wanted.update(run.needs)
    return Planned(tuple(runs), tuple(missing))


@dataclass(frozen=True)
class _Means:
    jobs: int
    ray: str | None
    threads: int

    def rows(self, runs: Sequence[Run], folder: Path, board: Board) -> Rows:
        """The row of each run as it comes."""
        if self.ray is None:
            return work(runs, folder, jobs=self.jobs, group=_task_name, **self._common(board))
        from secateurs.comparing.processes.on_ray import work_on_ray

        return work_on_ray(runs, folder, address=self.ray, **self._common(board))

    def _common(self, board: Board) -> dict[str, Any]:
        return {"execute": execute, "failed": failed, "threads": self.threads, "tell": board.tell}


def _task_name(run: Run) -> str:
    return run.task.name


def _carry_out(plan: Planned, results: Results, folder: Path, means: _Means, console: Any) -> None:
    if not plan.missing:
        return
    at_a_time = means.jobs if means.ray is None else os.cpu_count() or 1
    with Board(console, plan.missing, at_a_time) as board, closing(means.rows(plan.missing, folder, board)) as rows:
        for row in rows:
            results.append(row)
            board.over(row)


def _check_functions(comparison: Comparison, plan: Planned, done: Mapping[str, Row]) -> Iterator[str]:
    """Find the functions of all tasks and build the models still to be trained, before hours are spent; warn of changes."""
    for task in comparison.tasks:
        found = ready(task)
        if any(run.task == task for run in plan.missing):
            found.fresh(plan.missing[0].seed)
        olds = [done[run.name]["code"] for run in plan.runs if run.task == task and run.name in done]
        for key, code in found.code.items():
            if changed := sum(old.get(key) != code for old in olds):
                yield (f"task {task.name!r}: the file of its {key} function has changed since {changed} of {len(olds)} runs "
                       f"finished; if it does something else now, set the task's version to {task.version + 1}")  # fmt: skip
