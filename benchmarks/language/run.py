"""Prune the language model in every way and measure it: ``python -m benchmarks.language.run --jobs 2``.

Needs ``SECATEURS_DATA`` with ``models/llama-4domains``. Killed, the same command goes on to the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.language.grid import cells, chosen
from benchmarks.language.one import execute, failed
from secateurs.comparing.processes.workers import work
from secateurs.comparing.store import Results
from secateurs.errors import BadInput

__all__ = ["main"]

OUT = Path(__file__).parents[1] / "runs" / "language"


def main(arguments: list[str] | None = None) -> int:
    """Do what is not done yet; 1 if any of it failed."""
    said = _parser().parse_args(arguments)
    wanted, bad = chosen(said.only, cells(said.windows)), 0
    with Results(said.out / "results.jsonl") as results:
        done = results.done()
        _judged_alike(done.values(), said.windows)
        todo = [cell for cell in wanted if cell.name not in done]
        print(f"{len(wanted) - len(todo)} of {len(wanted)} models are there", flush=True)
        rows = work(todo, said.out, execute=execute, failed=failed, jobs=said.jobs, threads=said.threads)
        for number, row in enumerate(rows, 1):
            results.append(row)
            bad += row["status"] != "done"
            print(f"{number}/{len(todo)} {row['run']}: {_outcome(row)}", flush=True)
    return int(bad > 0)


def _judged_alike(rows: Iterable[Mapping[str, Any]], windows: int | None) -> None:
    """Perplexities of other windows are not to stand beside these."""
    for row in rows:
        if row["most_windows"] != windows:
            raise BadInput(f"--windows {windows}: the row of {row['run']} was measured with {row['most_windows']}; give that, "
                           "or another --out")  # fmt: skip


def _outcome(row: Mapping[str, Any]) -> str:
    if row["status"] != "done":
        return f"{row['error']['type']}: {row['error']['message']}"
    return " ".join([*(f"{value:.2f}" for value in row["perplexity"].values()), f"-> {row['geometric_mean']:.3f}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in every job")
    parser.add_argument("--windows", type=int, help="judge on so many windows of every domain (all)")
    parser.add_argument("--only", nargs="*", default=[], help="names or patterns, as wanda-60-*")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
