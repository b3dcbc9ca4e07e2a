"""A results file of 200 runs read and rendered: the whole command in a new process, and what of it is reading and drawing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from secateurs.comparing.outcome import Outcome
from secateurs.comparing.store import read_rows
from secateurs.errors import BadInput

__all__ = ["RESULTS", "read_and_render"]

RESULTS = Path(__file__).parents[1] / "results" / "fair" / "results.jsonl"


def read_and_render(count: int = 200, repeats: int = 5, source: Path = RESULTS) -> dict[str, Any]:
    """Seconds to make the page, the pictures and the tables of the first ``count`` finished runs of ``source``."""
    rows = [row for row in read_rows(source)[0] if row["status"] == "done"][:count]
    if len(rows) < count:
        raise BadInput(f"{str(source)!r} has {len(rows)} finished runs, not {count}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        inside = [_inside(path, Path(folder) / "page") for _ in range(repeats)]
        command = [_command(path, Path(folder) / "page") for _ in range(repeats)]
    return {"runs": count, "inside_s": sorted(inside), "command_s": sorted(command),
            "inside_median_s": statistics.median(inside), "command_median_s": statistics.median(command)}  # fmt: skip


def _inside(path: Path, out: Path) -> float:
    began = time.perf_counter()
    Outcome.read(path).write(out)
    return time.perf_counter() - began


def _command(path: Path, out: Path) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "secateurs.cli", "report", str(path), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began
