"""Results as JSON Lines, one finished run a line. A file is only ever replaced whole, so it never holds half a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs.files import write_whole

__all__ = ["add", "read"]


def read(path: Path) -> list[dict[str, Any]]:
    """The records of ``path``; none if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def add(path: Path, record: Mapping[str, Any]) -> None:
    """Add ``record`` to ``path``, in the place of an earlier one of the same run."""
    records = [r for r in read(path) if r["run"] != record["run"]] + [dict(record)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(r) + "\n" for r in records).encode())
