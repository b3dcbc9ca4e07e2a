"""The results file: one JSON object per line, one line per finished run, only ever added to.

A run killed at any moment loses what was under way and nothing else: a line cut short is left as it lies, and the next row
begins on a line of its own.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from secateurs.comparing.locking import lock
from secateurs.comparing.spec import SCHEMA, Comparison, plain
from secateurs.errors import BadInput, NotFinite

__all__ = ["RESULTS", "Results", "read_rows"]

RESULTS = "results.jsonl"  # in the folder of a comparison or a study

Row = dict[str, Any]


def read_rows(path: str | Path) -> tuple[list[Row], list[str]]:
    """The row that counts of every run of a results file, and a warning for every line that is none. Nothing is run.

    Of several rows of one run the last counts, but a failure does not undo a run that was done.

    Raises:
        BadInput: there is no such file, it is no results file, or it was written with another schema.
    """
    rows, warnings = _latest(Path(path))
    _check_schema(rows, path)
    return rows, warnings


class Results:
    """A results file and its rows; while it is open for writing no other process can open it so.

    ``rows`` are the rows that count, one for each run, in the order of the file (see :func:`read_rows`); ``warnings`` name
    the lines that are no rows. With ``write`` the file and its folder are made where they are missing.

    Raises:
        BadInput: another comparison is writing the file, or it cannot be opened or is no results file.
    """

    def __init__(self, path: str | Path, write: bool = True):
        self.path = Path(path)
        self._stream: BinaryIO | None = None
        unlocked = self._open() if write else None
        try:
            self.rows, self.warnings = _latest(self.path)
        except BaseException:
            self.close()
            raise
        if unlocked:
            self.warnings.append(unlocked)

    def done(self) -> dict[str, Row]:
        """The rows of the finished runs by name."""
        return {row["run"]: row for row in self.rows if row["status"] == "done"}

    def append(self, row: Mapping[str, Any]) -> None:
        """Add ``row`` as a line and wait until it is on the disk; what the file held before is not touched.

        Raises:
            NotFinite: a number of the row is NaN or infinite; nothing is written.
            BadInput: opened without ``write``, or the row names no run.
            OSError: the disk is full or gone; the rows before are safe.
        """
        if self._stream is None:
            raise BadInput(f"results file {str(self.path)!r} is open for reading only")
        line = _line(row)
        self._stream.write((b"\n" if self._is_cut() else b"") + line + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.rows = _that_count([*self.rows, json.loads(line)])

    def check(self, comparison: Comparison) -> None:
        """Refuse a file whose rows cannot stand in one table with those of ``comparison``.

        Raises:
            BadInput: a row has another schema, is of something else than a comparison, or measures a task of the same name by
                another metric, in another direction or on another split.
        """
        _check_schema(self.rows, self.path)
        ours = {task.name: _measured(plain(task)) for task in comparison.tasks}
        for row in self.rows:
            if "task" not in row or "arm" not in row:
                raise BadInput(f"results file {str(self.path)!r} is not of a comparison (run {row['run']!r}); {_ELSEWHERE}")
            theirs = row.get("determined_by", {}).get("task")
            if theirs and row["task"] in ours and _measured(theirs) != ours[row["task"]]:
                raise BadInput(f"results file {str(self.path)!r} measures task {row['task']!r} by {_measured(theirs)}, this "
                               f"comparison by {ours[row['task']]}; {_ELSEWHERE}")  # fmt: skip

    def close(self) -> None:
        """Let others write the file. Closing twice does nothing."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> str | None:
        """Open and lock the file; a warning where it cannot be locked."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a+b")
        except OSError as error:
            raise BadInput(f"results file {str(self.path)!r} cannot be written: {error}") from error
        try:
            return lock(self._stream, self.path)
        except BaseException:
            self.close()
            raise

    def _is_cut(self) -> bool:
        """Whether the last line lacks its end."""
        assert self._stream is not None
        if self._stream.seek(0, os.SEEK_END) == 0:
            return False
        self._stream.seek(-1, os.SEEK_END)
        return self._stream.read(1) != b"\n"


_ELSEWHERE = "choose another folder (--out)"


def _line(row: Mapping[str, Any]) -> bytes:
    if not isinstance(row.get("run"), str) or not isinstance(row.get("status"), str):
        raise BadInput(f"a row of results names its run and its status, but found only {', '.join(map(str, row)) or 'nothing'}")
    broken = [f"{place} is {number}" for place, number in _not_finite(row, "")]
    if broken:
        raise NotFinite(f"run {row['run']!r}: {', '.join(broken)}; its row is not written")
    return json.dumps(row, allow_nan=False).encode()


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Every NaN and infinity below ``value`` with its place, as in ``history.3.loss``."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _not_finite(item, f"{place}.{key}" if place else str(key))


def _latest(path: Path) -> tuple[list[Row], list[str]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadInput(f"results file {str(path)!r} cannot be read: {error}") from error
    found = {number: _row(line) for number, line in enumerate(lines, 1) if line.strip()}
    bad = [number for number, row in found.items() if row is None]
    if len(bad) == len(found) and any(not lines[number - 1].startswith((b"{", b"\0")) for number in bad):
        raise BadInput(f"{str(path)!r} is not a results file: none of its {len(found)} lines is the row of a run")
    warnings = [f"{path.name}: line {number} is not a whole row (cut off?): its run will be done again" for number in bad]
    return _that_count(row for row in found.values() if row is not None), warnings


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:  # UnicodeDecodeError is one
        return None
    whole = isinstance(row, dict) and isinstance(row.get("run"), str) and isinstance(row.get("status"), str)
    return row if whole else None


def _that_count(rows: Iterable[Row]) -> list[Row]:
    last: dict[str, Row] = {}
    for row in rows:
        before = last.get(row["run"])
        if before is None or row["status"] == "done" or before["status"] != "done":
            last.pop(row["run"], None)
            last[row["run"]] = row
    return list(last.values())


def _check_schema(rows: Iterable[Row], path: str | Path) -> None:
    for row in rows:
        if row.get("schema") != SCHEMA:
            raise BadInput(f"results file {str(path)!r} has rows of schema {row.get('schema')!r} (run {row['run']!r}); this "
                           f"version of secateurs writes and reads schema {SCHEMA}; {_ELSEWHERE}, or use the version that "
                           "wrote it")  # fmt: skip


def _measured(task: Mapping[str, Any]) -> str:
    """What a task as plain data is measured by, in words."""
    from secateurs.comparing.metrics import METRICS  # it needs torch, which reading a results file does not

    known = METRICS.get(task["metric"])
    direction = task.get("direction") or (known.direction if known else None)
    return f"{task['metric']} ({direction} is better) on {task['evaluate_on']}"
