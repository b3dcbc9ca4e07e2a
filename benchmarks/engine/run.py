"""Measure the engine and write ``benchmarks/results/engine.json``: ``python -m benchmarks.engine.run``."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.circumstances import measured
from benchmarks.engine.size import import_time, ranking, state
from benchmarks.engine.step import TASKS, measure
from benchmarks.engine.updates import updates

RESULTS = Path(__file__).parents[1] / "results" / "engine.json"


def main(arguments: list[str] | None = None) -> int:
    """Run everything, or the parts named, and rewrite those parts of the results."""
    said = _parser().parse_args(arguments)
    torch.set_num_threads(said.threads)
    parts: dict[str, Callable[[], dict[str, Any]]] = {"state": state, "import": import_time, "ranking": ranking}
    parts |= {f"step {task}": functools.partial(measure, task, said.steps) for task in TASKS}
    parts |= {f"updates {task}": functools.partial(updates, task) for task in TASKS}
    measured({name: parts[name] for name in said.only or parts}, said.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300, help="training steps per loop")
    parser.add_argument("--only", nargs="*", help="parts to measure")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
