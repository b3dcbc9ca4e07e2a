"""``secateurs compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from secateurs.cli.failing import INTERRUPTED
from secateurs.cli.showing import dump, show
from secateurs.comparing.harness import compare, comparison_from, folder_for, planned
from secateurs.comparing.outcome import Outcome
from secateurs.comparing.processes.board import label
from secateurs.comparing.recipes import grid
from secateurs.comparing.store import RESULTS, read_rows
from secateurs.report import Table

__all__ = ["compare_recipe", "list_runs"]

MOST = 5  # failed runs that are told one by one


def compare_recipe(recipe: Path, out: Path | None, jobs: int | None, ray: str | None, as_json: bool) -> bool:
    """Carry out what is missing and print the table; False if a run failed."""
    folder = folder_for(comparison_from(recipe), out)
    try:
        outcome = compare(recipe, out=folder, jobs=jobs, ray=ray, console=Console(stderr=True))
    except KeyboardInterrupt:
        _say(f"secateurs compare: interrupted; finished runs are kept in {folder / RESULTS}, the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        dump({"results": str(folder / RESULTS), "table": outcome.records(), "fairness": outcome.fairness(),
              "failures": outcome.failures, "warnings": outcome.warnings})  # fmt: skip
    else:
        _print(outcome, folder)
    _tell_failures(outcome)
    return not outcome.failures


def list_runs(recipe: Path, out: Path | None, as_json: bool) -> None:
    """Print the runs of a recipe, which are done and how many steps the others take at most. Imports and runs nothing of it."""
    comparison = comparison_from(recipe)
    folder = folder_for(comparison, out)
    rows = read_rows(folder / RESULTS)[0] if (folder / RESULTS).exists() else []
    plan = planned(comparison, folder, {row["run"]: row for row in rows if row["status"] == "done"})
    missing = {run.name for run in plan.missing}
    listed: list[dict[str, Any]] = [
        {"run": run.name, "what": label(run), "done": run.name not in missing, "steps": grid.steps(run)} for run in plan.runs
    ]
    left = sum(grid.steps(run) for run in plan.missing)
    if as_json:
        dump({"results": str(folder / RESULTS), "runs": listed, "steps_left": left})
        return
    lines = tuple((run["what"], "done" if run["done"] else "to do", f"{run['steps']:,}") for run in listed)
    caption = f"{len(plan.runs)} runs, {len(missing)} to do with {left:,} steps in all; results in {folder / RESULTS}"
    show(Table(("run", "", "steps"), (lines,), caption=caption, left=2))


def _print(outcome: Outcome, folder: Path) -> None:
    if outcome.rows:
        show(outcome.summary())
    for sentence in outcome.fairness():
        print(f"- {sentence}")
    if outcome.rows:
        print(f"\nResults: {folder / RESULTS}. A page of them: secateurs report {folder}")


def _tell_failures(outcome: Outcome) -> None:
    if not outcome.failures:
        return
    failed, total = len(outcome.failures), len(outcome.failures) + len(outcome.rows)
    _say(f"secateurs compare: {failed} of {total} runs failed; the same command tries them again")
    for row in outcome.failures[:MOST]:
        _say(f"  {row['run']}: {_line(row['error'])}")
    if failed > MOST:
        _say(f"  ... and {failed - MOST} more; their rows hold each error with its traceback")


def _line(error: dict[str, Any]) -> str:
    return f"{error['type']}: {' '.join(str(error['message']).split())}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
