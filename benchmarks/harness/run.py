"""Measure the harness: ``python -m benchmarks.harness.run``, on a quiet machine; writes ``benchmarks/results/harness.json``."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.circumstances import measured
from benchmarks.harness.overhead import TASKS, overhead
from benchmarks.harness.reading import read_and_render
from benchmarks.harness.side_by_side import side_by_side

__all__ = ["RESULTS", "main"]

RESULTS = Path(__file__).parents[1] / "results" / "harness.json"


def main(arguments: list[str] | None = None) -> int:
    """Run everything, or the parts named, and rewrite those parts of the results."""
    said = _parser().parse_args(arguments)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        **{f"overhead {task}": functools.partial(overhead, task, said.repeats, said.steps) for task in TASKS},
        "jobs": functools.partial(side_by_side, repeats=said.repeats, steps=said.steps),
        "report": functools.partial(read_and_render, repeats=said.repeats),
    }
    measured({name: parts[name] for name in said.only or parts}, said.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, help="training steps of a run, instead of each task's own")
    parser.add_argument("--only", nargs="*", help="parts to measure")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
