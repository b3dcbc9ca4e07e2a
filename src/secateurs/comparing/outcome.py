"""What came out of a comparison: its rows, and from them tables, warnings and a page."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from secateurs.comparing.reporting.fairness import PASSED, WARNING, Finding, check
from secateurs.comparing.reporting.points import Gathered, gather, newest
from secateurs.comparing.reporting.tables import layers_table, pairs_table, quality_table, records, summary_table, times_table
from secateurs.comparing.store import RESULTS, read_rows
from secateurs.errors import BadInput, MissingExtra
from secateurs.files import write_whole
from secateurs.report.rows import Row
from secateurs.report.tables import Table

__all__ = ["LAST", "Outcome", "wanted_beside"]

LAST = "runs.json"  # beside it: names of the runs that the last comparison there consists of
_TEXTS = ("run", "task", "arm", "protocol", "metric", "direction")
_NUMBERS = ("value", "seed", "steps", "inherited_steps", "cost_steps", "bytes", "kept", "selected", "parameters", "nonzero")


class Outcome:
    """The results of a comparison.

    Args:
        rows: results rows, finished and failed, as :func:`secateurs.comparing.store.read_rows` gives them.
        warnings: what was wrong with the file they come from.
        source: name of that file, for the page.
        wanted: names of the runs that count where settings have changed.

    Of rows that differ in settings alone (same task, arm, point and seed) a wanted one, or else the last, counts; ``warnings``
    says so. A finished row that lacks a key, or holds a number that is not finite, is left out with a warning.
    """

    def __init__(
        self, rows: Iterable[Row], warnings: Sequence[str] = (), source: str = RESULTS, wanted: Container[str] = ()
    ):  # fmt: skip
        self.source = source
        self.warnings = list(warnings)
        kept, replaced = newest(self._sound(rows), wanted)
        if replaced:
            names = ", ".join(f"'{row['run']}'" for row in replaced[:3]) + (", ..." if len(replaced) > 3 else "")
            self.warnings.append(f"{len(replaced)} rows are of other settings than those shown: {names}; left out")
        self.rows = [dict(row) for row in kept if row["status"] == "done"]
        """The finished runs."""
        self.failures = [dict(row) for row in kept if row["status"] != "done"]
        """The rows of runs that failed, each with its ``error``."""

    @classmethod
    def read(cls, path: str | Path) -> Outcome:
        """From a results file, or a folder that holds ``results.jsonl``. Nothing a row names is imported.

        Raises:
            BadInput: there is no such file, or it is not a results file.
        """
        path = Path(path)
        file = path / RESULTS if path.is_dir() else path
        rows, warnings = read_rows(file)
        return cls(rows, warnings, file.name, wanted_beside(file))

    @property
    def name(self) -> str:
        """Of the comparison, as its last row has it."""
        return str(next((row["comparison"] for row in reversed(self.rows) if row.get("comparison")), "comparison"))

    @cached_property
    def gathered(self) -> Gathered:
        """Tasks, points and pairs, for one's own tables."""
        return gather(self.rows, self.failures)

    @cached_property
    def checks(self) -> list[Finding]:
        """The whole checklist: warnings, notes, and what was checked and passed."""
        return check(self.gathered)

    def fairness(self) -> list[str]:
        """Why the comparison may be unfair, worst first; what was meant so or is mild begins with ``Note:``."""
        told = [found for found in self.checks if found.level != PASSED]
        return [found.text if found.level == WARNING else f"Note: {found.text}" for found in told]

    def table(self) -> Table:
        """Quality against what it costs: a section per task and operating point, a line per arm."""
        return quality_table(self.gathered.tasks)

    def summary(self) -> Table:
        """:meth:`table` with the columns that a terminal has room for."""
        return summary_table(self.gathered.tasks)

    def pairs(self) -> Table:
        """Every two arms at every point, paired over seeds."""
        return pairs_table(self.gathered.tasks)

    def layers(self) -> Table:
        """The share removed of every layer."""
        return layers_table(self.gathered.tasks)

    def times(self) -> Table:
        """Latency, seconds and memory: what differs from one day to the next."""
        return times_table(self.gathered.tasks)

    def records(self) -> list[dict[str, Any]]:
        """The content of :meth:`table` as numbers: a dictionary per task, arm and point."""
        return records(self.gathered.tasks)

    def to_pandas(self) -> Any:
        """:meth:`records` as a ``pandas.DataFrame``; for single runs give :attr:`rows` to pandas.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise MissingExtra("to_pandas() needs 'pandas', which is not installed: pip install pandas") from error
        return pandas.DataFrame(self.records())

    def markdown(self) -> str:
        """The table of every task, and the warnings, for a document. The same for every run of the same comparison."""
        return self._document("Results", [quality_table([task]) for task in self.gathered.tasks])

    def write(self, folder: str | Path) -> Path:
        """Write ``index.html``, a PNG per task, and the tables as Markdown into ``folder``; return the page's path.

        Raises:
            MissingExtra: plotly, matplotlib or jinja2 is not installed.
            BadInput: there is no finished run, or ``folder`` is a file.
        """
        from secateurs.comparing.reporting.page import render, stills

        if not self.gathered.tasks:
            failed = f"; {len(self.failures)} failed" if self.failures else ""
            raise BadInput(f"{self.source} has no finished run to report{failed}")
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"{folder} is a file; the report needs a folder")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self._documents().items():
            write_whole(folder / name, text.encode())
        for name, png in stills(self.gathered).items():
            write_whole(folder / name, png)
        write_whole(folder / "index.html", render(self).encode())
        return folder / "index.html"

    def _documents(self) -> dict[str, str]:
        tasks = self.gathered.tasks
        return {
            "table.md": self.markdown(),
            "pairs.md": self._document("Pairs", [pairs_table([task]) for task in tasks]),
            "layers.md": self._document("Layers", [layers_table([task]) for task in tasks]),
            "times.md": self._document("Times and memory", [times_table([task]) for task in tasks]),
        }

    def _document(self, title: str, tables: Sequence[Table]) -> str:
        warned = "".join(f"- {text}\n" for text in self.fairness())
        parts = [f"# {title}: {self.name}\n", f"Before you compare:\n\n{warned}" if warned else ""]
        for task, table in zip(self.gathered.tasks, tables, strict=True):
            parts.append(f"## {task.name}\n\n{table.markdown()}" if table.lines else "")
        return "\n".join(part for part in parts if part)

    def _sound(self, rows: Iterable[Row]) -> list[Row]:
        sound = []
        for row in rows:
            if problem := _problem(row):
                self.warnings.append(f"the row of run {str(row.get('run'))!r} {problem}: left out")
            else:
                sound.append(row)
        return sound


def wanted_beside(results: Path) -> list[str]:
    """Names of the runs that the last comparison in the folder of ``results`` consists of; none where that is not known.

    Raises:
        BadInput: the file that says so is not JSON.
    """
    file = results.parent / LAST
    if not file.is_file():
        return []
    try:
        names = json.loads(file.read_bytes())
    except ValueError as error:
        raise BadInput(f"{str(file)!r} is not JSON ({error}); delete it, and the last row of every run counts") from error
    return [str(name) for name in names] if isinstance(names, list) else []


def _problem(row: Row) -> str:
    """Why a row cannot be read, or an empty string."""
    done = row.get("status") == "done"
    texts = [key for key in (_TEXTS if done else _TEXTS[:4]) if not isinstance(row.get(key), str)]
    numbers = [key for key in (_NUMBERS if done else ("seed",)) if not _finite(row.get(key))]
    if row.get("status") not in ("done", "failed"):
        return f"has status {row.get('status')!r}, neither 'done' nor 'failed'"
    if missing := texts + numbers:
        return f"lacks {', '.join(repr(key) for key in missing)}, or has there what does not belong"
    return ""


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
