"""Progress of the experiment: a bar for all runs and one for each under way; without a terminal, a line per finished run."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from secateurs.extras import require
from secateurs.report.rows import Row

__all__ = ["Board"]


class Board:
    """A context manager that draws on a rich ``console`` while it is open."""

    def __init__(self, console: Any, total: int):
        progress = require("rich.progress", "cli")
        self._console = console
        self._progress = progress.Progress(
            progress.TextColumn("{task.description:<32}"), progress.BarColumn(), progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(), console=console, transient=True)  # fmt: skip
        self._all = self._progress.add_task("all runs", total=total)
        self._running: dict[str, Any] = {}
        self._finished: set[str] = set()

    def __enter__(self) -> Board:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def tell(self, name: str, step: int, steps: int) -> None:
        """Run ``name`` has made ``step`` of its ``steps``; a report that comes after the run's result is passed over."""
        if name in self._finished:
            return
        if name not in self._running:
            self._running[name] = self._progress.add_task(name.rpartition("-")[0], total=steps)
        self._progress.update(self._running[name], completed=step)

    def done(self, row: Row, skipped: bool = False) -> None:
        """A run is finished, or was finished before."""
        self._progress.advance(self._all)
        self._finished.add(row["model"])
        task = self._running.pop(row["model"], None)
        if task is not None:
            self._progress.remove_task(task)
        if not self._console.is_terminal and not skipped:
            self._console.print(f"{row['label']}, seed {row['seed']}: accuracy {row['accuracy']:.4f}, "
                                f"{row['bytes']:,} bytes, {row['seconds']:.1f} s")  # fmt: skip
