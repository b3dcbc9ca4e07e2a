"""Prune every architecture of the list and check it: ``python -m benchmarks.coverage.run --jobs 2``.

Every architecture has a process of its own, with a limit. Killed, the same command goes on to the same file. ``--tool peer``
needs an environment with Torch-Pruning, which the library's own does not have.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.coverage import ours, peer
from benchmarks.coverage.apart import apart
from benchmarks.coverage.architectures import chosen
from secateurs.comparing.spec import SCHEMA
from secateurs.comparing.store import Results

__all__ = ["main"]

OUT = Path(__file__).parents[1] / "runs" / "coverage"
TOOLS = {"ours": (ours.measure, "secateurs.jsonl"), "peer": (peer.measure, "torch-pruning.jsonl")}


def main(arguments: list[str] | None = None) -> int:
    """Do what is not done yet; 1 if any architecture failed."""
    said = _parser().parse_args(arguments)
    measure, file = TOOLS[said.tool]
    names = [entry.name for entry in chosen(said.only)]
    with Results(said.out / file) as results:
        there = {row["run"] for row in results.rows if not said.again or row["status"] == "done"}
        todo = [name for name in names if name not in there]
        for number, (name, row) in enumerate(apart(measure, todo, said.seconds, said.jobs), 1):
            row = {"schema": SCHEMA, "run": name, "status": "failed", **row}
            results.append(row)
            print(f"{number}/{len(todo)} {name}: {row.get('reason', row['status'])}", flush=True)
        failed = [row for row in results.rows if row["run"] in names and row["status"] != "done"]
    print(f"{len(names) - len(failed)} of {len(names)} architectures passed", flush=True)
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", choices=TOOLS, default="ours")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=60, help="of processor time for each")
    parser.add_argument("--again", action="store_true", help="also those that failed before")
    parser.add_argument("--only", nargs="*", default=[], help="names, or parts of them")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
