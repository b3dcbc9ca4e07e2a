"""Progress of a comparison: a bar for all and one for each run under way; without a terminal, a line per finished run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from secateurs.comparing.processes.timeleft import TimeLeft
from secateurs.comparing.recipes.grid import steps as expected_steps
from secateurs.comparing.spec import Run
from secateurs.extras import require

__all__ = ["Board", "label", "outcome_line"]

Row = Mapping[str, Any]


def label(run: Run) -> str:
    """``"mnist · gmp · 90 % · seed 1"``."""
    point = [run.point.label] if run.point else []
    return " · ".join([run.task.name, run.arm.name, *point, f"seed {run.seed}"])


def outcome_line(row: Row) -> str:
    """What came of a run: ``"top-1 97.32 % in 12.3 s"``, or the first line of its error."""
    seconds = row["seconds"]["total"]
    if row["status"] != "done":
        text = row["error"]["message"].strip().splitlines()
        return f"FAILED after {seconds:.1f} s: {row['error']['type']}: {text[0] if text else ''}"
    value = f"{100 * row['value']:.2f} %" if row["percent"] else f"{row['value']:.5g}"
    return f"{row['metric']} {value} in {seconds:.1f} s"


class Board:
    """A context manager that draws on a rich ``console`` while it is open.

    Args:
        console: where it is drawn.
        runs: those to be carried out.
        jobs: how many at a time, for the time left.
        label: what a run is called.
        steps: the most steps it takes.
    """

    def __init__(self, console: Any, runs: Sequence[Any], jobs: int, label: Callable[[Any], str] = label,
                 steps: Callable[[Any], int] = expected_steps):  # fmt: skip
        progress = require("rich.progress", "compare")
        self._console = console
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False), progress.BarColumn(24),
            progress.TextColumn("{task.fields[said]}", markup=False), console=console, transient=True,
            disable=not console.is_terminal)  # fmt: skip
        self._labels = {run.name: label(run) for run in runs}
        self._steps = {run.name: steps(run) for run in runs}
        self._made: dict[str, int] = {}
        self._running: dict[str, Any] = {}
        self._left = TimeLeft(self._steps, {run.name: run.task.name for run in runs}, jobs)
        self._done = self._failed = 0
        self._all = self._progress.add_task("all runs", total=None, said="")

    def __enter__(self) -> Board:
        self._progress.start()
        self._draw()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def tell(self, name: str, step: int, steps: int) -> None:
        """Run ``name`` has made ``step`` of its ``steps``; a report that comes after its row is passed over."""
        if name not in self._labels:
            return
        if name not in self._running:
            self._running[name] = self._progress.add_task(self._labels[name], total=steps, said="")
        self._steps[name], self._made[name] = steps, step
        self._left.tell(name, step, steps, time.monotonic())
        self._progress.update(self._running[name], completed=step, total=steps, said=f"step {step:,} of {steps:,}")
        self._draw()

    def over(self, row: Row) -> None:
        """A run is done or failed."""
        name = row["run"]
        self._done, self._failed = self._done + (row["status"] == "done"), self._failed + (row["status"] != "done")
        if (line := self._running.pop(name, None)) is not None:
            self._progress.remove_task(line)
        text, self._made[name] = self._labels.pop(name), self._steps[name]
        self._left.done(name)
        if not self._console.is_terminal or row["status"] != "done":
            so_far = f"[{self._done + self._failed}/{len(self._steps)}]"
            style = None if row["status"] == "done" else "red"
            line = f"{so_far} {text}: {outcome_line(row)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)
        self._draw()

    def _draw(self) -> None:
        failed = f", {self._failed} failed" if self._failed else ""
        said = f"{self._done} of {len(self._steps)} done{failed}, {_time_text(self._left.seconds())}"
        self._progress.update(self._all, completed=sum(self._made.values()), total=sum(self._steps.values()), said=said)


def _time_text(seconds: float | None) -> str:
    """``"about 3 min left"``."""
    if seconds is None:
        return "time left unknown"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"
