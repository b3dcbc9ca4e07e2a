"""``python -m benchmarks.families.run``: train what is missing of the families and write one JSON line per finished run."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.families import data, results
from benchmarks.families.grid import runs
from benchmarks.families.setting import Run, shrunk
from benchmarks.families.settings import CARD_OF, FAMILIES, SIZES, settings
from benchmarks.families.tasks import make_task
from benchmarks.families.train import run_one
from secateurs.errors import BadInput

__all__ = ["main"]

HERE = Path(__file__).parents[1]
CHECKPOINTS = HERE / "runs" / "families"
_told: dict[str, Any] = {}  # in a worker: the queue on which it tells how far it is


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 when every run is finished, 2 for an argument that cannot work."""
    said = _parser().parse_args(arguments)
    try:
        folder = data.root(said.data)
        families = FAMILIES if said.family == "all" else (said.family,)
        missing = [run for family in families for run in _missing(family, said, folder)]
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if said.list:
        print("\n".join(run.name for run in missing))
        return 0
    _work_off(missing, folder, said)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families.run", description=__doc__)
    parser.add_argument("--family", choices=[*FAMILIES, "all"], default="all")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds data/ and models/ (or set SECATEURS_DATA)")
    parser.add_argument("--size", choices=list(SIZES), default="short", help="card: the paper's own shapes")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "families")
    parser.add_argument("--list", action="store_true", help="print the runs that are missing and stop")
    return parser


def _missing(family: str, said: argparse.Namespace, folder: Path) -> list[Run]:
    done = {record["run"] for record in results.read(_file(said.out, family, said.size))}
    tasks = [make_task(setting, folder) for setting in settings(family, said.size)]
    every = [run for task in tasks for run in runs(task, said.size, range(said.seeds))]
    return [run for run in every if run.name not in done]


def _file(out: Path, family: str, size: str) -> Path:
    return out / f"{family}-{size}.jsonl"


def _work_off(missing: list[Run], folder: Path, said: argparse.Namespace) -> None:
    """Train ``missing`` in ``said.jobs`` processes; a finished run is written before its checkpoint goes."""
    for setting in {run.setting.model: run.setting for run in missing}.values():
        make_task(setting, folder).prepare()
    context = multiprocessing.get_context("spawn")
    news = context.Queue()
    with ProcessPoolExecutor(said.jobs, context, initializer=_begin_worker, initargs=(news,)) as pool, _bars() as bars:
        total = bars.add_task("all runs", total=sum(run.setting.steps for run in missing))
        waiting = {pool.submit(_worker, run, folder): run for run in missing}
        shown: dict[str, Any] = {}
        while waiting:
            finished = wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED").done
            _show(news, bars, total, shown)
            for future in finished:
                run = waiting.pop(future)
                _finish(run, future, said)
                if run.name in shown:  # the last news may still be on the way
                    bars.remove_task(shown.pop(run.name))


def _finish(run: Run, future: Future, said: argparse.Namespace) -> None:
    record = {**future.result(), "shrunk": shrunk(run.setting, CARD_OF[run.setting.model])}
    results.add(_file(said.out, run.setting.family, run.size), record)
    _checkpoint(run).unlink(missing_ok=True)
    print(f"{run.name}: {record['metric']} {record['test']:.2f} on test, {record['payload_bytes']} bytes", flush=True)


def _show(news: Any, bars: Progress, total: Any, shown: dict[str, Any]) -> None:
    """Bring the bars up to date with what the workers told since the last time."""
    while True:
        try:
            name, step, steps, advance = news.get_nowait()
        except Empty:
            return
        if name not in shown:
            shown[name] = bars.add_task(name, total=steps)
        bars.update(shown[name], completed=step)
        bars.advance(total, advance)


def _worker(run: Run, folder: Path) -> dict[str, Any]:
    return run_one(run, make_task(run.setting, folder), _checkpoint(run), _teller(run, _told["news"]))


def _teller(run: Run, news: Any, every: int = 5) -> Callable[[int], None]:
    """Passes on every ``every``-th step; the first news also counts what a resumed run had done before."""
    told = [0]
    news.put((run.name, 0, run.setting.steps, 0))

    def tell(step: int) -> None:
        _end_with_parent()
        if step % every == 0 or step == run.setting.steps:
            news.put((run.name, step, run.setting.steps, step - told[0]))
            told[0] = step

    return tell


def _end_with_parent() -> None:
    """Stop at once if the process that would write the result is gone: the checkpoint has what the next one needs."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _checkpoint(run: Run) -> Path:
    return CHECKPOINTS / f"{run.name}.pt"


def _begin_worker(news: Any) -> None:
    torch.set_num_threads(1)
    _told["news"] = news


def _bars() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns)


if __name__ == "__main__":
    sys.exit(main())
