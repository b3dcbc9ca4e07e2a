"""The experiment from beginning to end. What is finished is not run again, so it may be killed and started at will."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from secateurs.comparing.processes.workers import work
from secateurs.demo import summary
from secateurs.demo.board import Board
from secateurs.demo.network import FULL, build
from secateurs.demo.reload import reload_in_new_process
from secateurs.demo.results import Results
from secateurs.demo.settings import Job, Settings, dense_jobs, full_and_sparse_jobs, recipe
from secateurs.demo.timing import measure_latency
from secateurs.demo.training import Tell, failed, train
from secateurs.errors import BadInput, SecateursError
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.formats.folder import replacing
from secateurs.measure import narrowest
from secateurs.report import Table, render_page
from secateurs.report.rows import Row

__all__ = ["run"]

Rows = list[dict[str, Any]]


def run(out: Path | str, seeds: int = 3, quick: bool = False, workers: int | None = None, console: Any = None) -> int:
    """Train, prune, compare, save, reload, report, all into the folder ``out``; returns the exit code.

    Args:
        out: made if missing. Finished runs found in its ``results.jsonl`` with the same settings are kept.
        seeds: repetitions of every run.
        quick: one seed and a few steps: shows that everything works and nothing about pruning.
        workers: processes side by side, one thread each; by default two, or one where there is one processor.
        console: the ``rich.console.Console`` to print on.

    Returns:
        0, or 3 if the saved model's outputs in a new process are not those it had when saved.

    Raises:
        BadInput: ``seeds`` or ``workers`` below 1, or ``out`` cannot be a folder.
    """
    settings = Settings.quick() if quick else Settings(seeds=seeds)
    count = _worker_count(workers)
    console = console or require("rich.console", "cli").Console()
    for module in ("jinja2", "matplotlib", "safetensors", "sklearn", "yaml"):
        require(module, "demo")  # what the last minute needs is missed in the first second
    out = _folder(out)
    results = Results(out / "results.jsonl")
    rows = _train_all(settings, results, out / "models", count, console)
    latency = measure_latency(rows, out / "models", results, settings.repeats)
    median, iqr = latency["median_s"], latency["iqr_s"]
    rows = [{**row, "latency_s": median[row["label"]], "latency_iqr_s": iqr[row["label"]]} for row in rows]
    best = summary.best_sparse(rows)
    _keep_best(out / "models" / best["model"], out / "best-sparse")
    reload = summary.reload_sentence(reload_in_new_process(out / "best-sparse", _logits(out, best)), best)
    _report(settings, rows, latency, reload, best, out, console)
    return 0 if reload[0] else 3


def _worker_count(workers: int | None) -> int:
    if workers is None:
        return min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if workers < 1:
        raise BadInput(f"workers={workers}: give the number of processes, at least 1")
    return workers


def _folder(out: Path | str) -> Path:
    path = Path(out).expanduser().resolve()
    try:
        (path / "models").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"out={str(out)!r} cannot be the folder for the results: {error.strerror or error}") from error
    return path


def _train_all(settings: Settings, results: Results, models: Path, count: int, console: Any) -> Rows:
    """The full and the sparse networks first: the files of the latter say how wide their dense rivals are."""
    first = full_and_sparse_jobs(settings)
    total = len(first) + settings.seeds * len(settings.sparsities)
    with Board(console, total) as board:

        def finish(jobs: Sequence[Job]) -> Rows:
            missing = [job for job in jobs if job.id not in results or not (models / job.name).is_dir()]
            for job in jobs:
                if job not in missing:
                    board.done(results[job.id], skipped=True)
            for row in _carried_out(missing, models, count, board.tell):
                results.add(row)
                board.done(row)
            return [results[job.id] for job in jobs]

        rows = finish(first)
        rows += finish(dense_jobs(settings, _rival_widths(settings, rows)))
    order = [f"{share * 100:g} %" for share in (0.0, *settings.sparsities)]
    return sorted(rows, key=lambda row: (order.index(row["point"]), row["method"] == "dense", row["seed"]))


def _carried_out(jobs: Sequence[Job], models: Path, count: int, tell: Tell) -> Iterator[dict[str, Any]]:
    """Rows as they come. One thread each, always: the bits of a result then do not depend on how many run at a time."""
    with closing(work(jobs, models, execute=train, failed=failed, jobs=count, tell=tell, here=count == 1)) as rows:
        for row in rows:
            if "error" in row:
                raise SecateursError(f"run {row['model']} failed: {row['error']}")
            yield row


def _rival_widths(settings: Settings, rows: Rows) -> list[int]:
    largest = {share: max(row["bytes"] for row in rows if row["sparsity"] == share) for share in settings.sparsities}
    return [narrowest(build, range(1, FULL + 1), largest[share]) for share in settings.sparsities]


def _keep_best(source: Path, target: Path) -> None:
    with replacing(target, overwrite=True) as fresh:
        shutil.copytree(source, fresh, dirs_exist_ok=True)


def _logits(out: Path, row: Row) -> Path:
    return out / "models" / f"{row['model']}.logits.safetensors"


def _report(settings: Settings, rows: Rows, latency: Row, reload: tuple[bool, str], best: Row, out: Path, console: Any) -> None:
    table, figure, sentences = summary.make_table(rows, latency), summary.make_figure(rows), summary.findings(rows)
    sparse = {job.id: job for job in full_and_sparse_jobs(settings) if job.sparsity}
    page = summary.make_page(settings, table, figure, sentences, reload, recipe(sparse[best["id"]]).to_yaml())
    files = {"curves.png": figure.light, "curves-dark.png": figure.dark, "table.md": table.markdown().encode()}
    whole = {"rows": rows, "latency": latency, "findings": sentences, "reload": reload}
    files["summary.json"] = (json.dumps(whole, indent=1) + "\n").encode()
    files |= {f"recipe-gmp-{job.sparsity:g}.yaml": recipe(job).to_yaml().encode() for job in sparse.values()}
    _write({**files, "index.html": render_page(page).encode()}, out)
    _print(table, sentences, reload, out, console)


def _write(files: dict[str, bytes], out: Path) -> None:
    for name, content in files.items():
        write_whole(out / name, content)


def _print(table: Table, sentences: Sequence[str], reload: tuple[bool, str], out: Path, console: Any) -> None:
    passed, said = reload
    console.print(table.rich())
    for sentence in sentences:
        console.print(f"- {sentence}", markup=False, highlight=False)
    verdict, style = ("passed", "green") if passed else ("FAILED", "bold red")
    console.print(f"\nReload check {verdict}: {said}.", style=style, markup=False, highlight=False)
    kept = "index.html, curves.png, table.md, summary.json, results.jsonl, recipe-gmp-*.yaml, best-sparse/"
    console.print(f"\nIn {out}: {kept}", markup=False, highlight=False)
