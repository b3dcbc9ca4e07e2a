"""``secateurs study``: does the loss after pruning tell which filters to keep? Does one law fit dense and sparse training?"""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.console import Console

from secateurs.cli.failing import INTERRUPTED
from secateurs.cli.showing import dump, show
from secateurs.comparing.store import RESULTS
from secateurs.comparing.studies.oracle import study_oracle
from secateurs.comparing.studies.outcome import OracleOutcome
from secateurs.comparing.studies.page import sentences, write
from secateurs.comparing.studies.scaling import ScalingOutcome, read_runs
from secateurs.comparing.studies.scaling_page import write as write_scaling

__all__ = ["oracle", "scaling", "tell"]


def oracle(recipe: Path, out: Path, jobs: int, json: bool) -> bool:
    """Carry out what is missing of the study, write its page into ``out`` and say what came out; False if a run failed."""
    try:
        outcome = study_oracle(recipe, out=out, jobs=jobs, console=Console(stderr=True))
    except KeyboardInterrupt:
        _say(f"interrupted; finished retrainings are kept in {out / RESULTS}, the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    write(outcome, out)
    tell(outcome, out, json)
    return not outcome.failures


def tell(outcome: OracleOutcome, folder: Path, json: bool, command: str = "study oracle") -> None:
    """Print what a study found, and where its page is."""
    if json:
        dump(outcome.to_dict())
    else:
        show(outcome.table())
        print("\n".join(f"- {sentence}" for sentence in sentences(outcome)))
        print(f"\nIn {folder}: index.html, scatter.png, scatter-dark.png, study.md, study.json")
    for warning in outcome.warnings:
        _say(warning, command)


def scaling(results: Path, out: Path, json: bool) -> None:
    """Fit the law to the dense runs of a table, judge it by the sparse ones, write the page into ``out`` and print it."""
    outcome = ScalingOutcome(read_runs(results))
    write_scaling(outcome, out, results.stem)
    if json:
        dump(outcome.to_dict())
        return
    show(outcome.law_table())
    show(outcome.table())
    print("\n".join(f"- {sentence}" for sentence in outcome.sentences()))
    print(f"\nIn {out}: index.html, scaling.png, scaling-dark.png, study.md, study.json")


def _say(text: str, command: str = "study oracle") -> None:
    print(f"secateurs {command}: {text}", file=sys.stderr)
