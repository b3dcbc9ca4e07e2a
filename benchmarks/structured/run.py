"""The command line of both sides: every run once, its row added to a file; killed, the same command goes on."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from benchmarks.coverage.apart import one_line
from benchmarks.structured.task import Cut, Judge
from secateurs.comparing.spec import SCHEMA
from secateurs.comparing.store import Results

__all__ = ["Side", "main"]

SHOWN = ("flops", "straight", "reestimated", "trained", "latency", "seconds")
OUT = Path(__file__).parents[1] / "runs" / "structured"


class Side(Protocol):
    """A library that prunes."""

    file: str

    def names(self) -> Iterator[str]:
        """All of its runs."""

    @property
    def tool(self) -> str:
        """Its name and version."""

    def cut(self, name: str, judge: Judge, flops: float) -> Cut:
        """The pruned copy of ``judge.dense`` of run ``name``, with at most ``flops`` of its multiply-adds."""


def main(side: Side, arguments: list[str] | None = None) -> int:
    """Do what is not done yet; 1 if any of it failed."""
    said = _parser().parse_args(arguments)
    judge, bad = Judge(said.epochs, said.repeats, said.test_images, said.train_images), 0
    with Results(said.out / side.file) as results:
        for name in side.names():
            run = f"{name}-epochs-{said.epochs}"
            if run in results.done() or (said.only and not any(fnmatch.fnmatch(name, only) for only in said.only)):
                continue
            try:
                row = judge.row(run, side.tool, side.cut(name, judge, said.flops))
            except Exception as error:  # the row says so, and the other runs go on
                row = {"schema": SCHEMA, "run": run, "status": "failed", "tool": side.tool, "reason": one_line(error)}
                bad += 1
            results.append(row)
            print(run, row.get("reason") or {key: round(row[key], 4) for key in SHOWN if key in row}, flush=True)
    return int(bad > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--flops", type=float, default=0.5, help="share of the multiply-adds that is left")
    parser.add_argument("--epochs", type=int, default=0, help="of training afterwards")
    parser.add_argument("--train-images", type=int, help="that an epoch goes through; by default all")
    parser.add_argument("--test-images", type=int, help="that accuracies are of; by default all")
    parser.add_argument("--repeats", type=int, default=20, help="of every timing")
    parser.add_argument("--only", nargs="*", default=[], help="names or patterns, as taylor-*")
    return parser


if __name__ == "__main__":
    raise SystemExit("run benchmarks.structured.ours or benchmarks.structured.peer")
