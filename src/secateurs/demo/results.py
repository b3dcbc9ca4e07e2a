"""``results.jsonl``: one line per finished piece of work, so that a run killed at any moment loses only what was under way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from secateurs.errors import CorruptFile
from secateurs.files import write_whole

__all__ = ["Results"]


class Results:
    """Rows by their ``id``; of several lines with one id the last counts."""

    def __init__(self, path: Path):
        self._path = path
        self._rows: dict[str, dict[str, Any]] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole, _, rest = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            self._read(line, number)
        if rest:  # a line without its end: the write was cut short, its work is done again
            write_whole(path, f"{whole}\n".encode() if whole else b"")

    def __contains__(self, id: str) -> bool:
        return id in self._rows

    def __getitem__(self, id: str) -> dict[str, Any]:
        return self._rows[id]

    def add(self, row: dict[str, Any]) -> None:
        """Append ``row`` and wait until it is on the disk."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._rows[row["id"]] = row

    def _read(self, line: str, number: int) -> None:
        try:
            row = json.loads(line)
            self._rows[row["id"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptFile(f"line {number} of {self._path} is not a result of the demo ({error!r})") from error
