"""How results are printed: tables for people, JSON for scripts, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from secateurs import report
from secateurs.report.words import bytes_text, shape_text, share

__all__ = ["Stages", "bytes_text", "dump", "facts", "shape_text", "share", "show", "stages"]


def dump(data: Any) -> None:
    """``data`` as JSON, alone on stdout."""
    print(json.dumps(data, indent=2, allow_nan=False))


def show(table: report.Table) -> None:
    """The table, its words folded to the terminal's width; unfolded text where there is none (a pipe, a file)."""
    if not sys.stdout.isatty():
        print(table.plain())
        return
    drawn = replace(table, caption="").rich()
    for column in drawn.columns:
        column.vertical = "top"
    for column in drawn.columns[: table.left]:
        column.min_width, column.overflow = None, "fold"
    Console().print(drawn, *([Text(table.caption)] if table.caption else []))


def facts(pairs: dict[str, str]) -> None:
    """Lines of a word and what there is to say about it, folded under themselves in a terminal."""
    if not sys.stdout.isatty():
        width = max(map(len, pairs))
        print("\n".join(f"{word:<{width}}  {text}" for word, text in pairs.items()))
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    for word, text in pairs.items():
        grid.add_row(Text(word, style="bold"), Text(text))
    Console().print(grid)


class Stages:
    """The stages of a command, told on stderr as each begins."""

    def __init__(self, progress: Progress, count: int):
        self._progress = progress
        self._task = progress.add_task("", total=count)
        self._begun = 0

    def begin(self, what: str) -> None:
        """The stage before is done and ``what`` begins."""
        self._progress.update(self._task, description=what, completed=self._begun)
        self._begun += 1

    def note(self, text: str) -> bool:
        """Show ``text`` beside the stage; whether there is a terminal that does."""
        self._progress.update(self._task, description=text)
        return not self._progress.disable


@contextmanager
def stages(count: int) -> Iterator[Stages]:
    """A bar over ``count`` stages on stderr, gone when they are done; nothing where stderr is not a terminal."""
    console = Console(stderr=True)
    count_text = TextColumn("{task.completed:.0f}/{task.total:.0f}")
    columns = (TextColumn("{task.description:<10}"), BarColumn(20), count_text, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Stages(progress, count)
