"""The sections on ResNet-56 and the language model of the results page, from ``benchmarks/results/structured`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.comparing.store import read_rows
from secateurs.errors import BadInput
from secateurs.report import Table

__all__ = ["RESULTS", "language_section", "section"]

RESULTS = Path(__file__).parents[1] / "results" / "structured"
FILES = ("secateurs.jsonl", "torch-pruning.jsonl")
LANGUAGE = "language.jsonl"

INTRODUCTION = """\
## ResNet-56 with half its multiply-adds

The trained CIFAR-10 network loses channels until {flops:.0%} of its multiply-adds are left, by whole coupled groups ("whole")
or only between the two convolutions of a block ("inside"). "fit" and "obspa" refit the layers that lost columns,
without training, by what they read on the calibration images ("noise": on random numbers). Test accuracy straight after, after
the batch norms' statistics are taken anew from {images} training images, and, where it was run, after training. Planning and
cutting are timed from the traced network on; the time of a batch of 64 is a share of the dense network's, measured in turns.
"""


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    rows = [row for file in FILES if (results / file).is_file() for row in read_rows(results / file)[0]]
    rows = sorted((row for row in rows if row["status"] == "done"), key=lambda row: -row["reestimated"])
    if not rows:
        raise BadInput(f"no results in {str(results)!r}: run python -m benchmarks.structured.ours and .peer first")
    head = ("", "run", "multiply-adds", "parameters", "straight", "re-estimated", "trained", "time", "planning and cutting")
    introduction = INTRODUCTION.format(flops=max(round(row["flops"], 2) for row in rows), images=rows[0]["calibration"])
    return "\n".join([introduction, Table(head, (tuple(_line(row) for row in rows),), left=2).markdown()])


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    trained = f"{row['trained']:.1%} ({row['epochs']} epoch{'s' * (row['epochs'] > 1)})" if "trained" in row else ""
    size = row["parameters"] / row["dense_parameters"]
    return (row["tool"], row["run"].partition("-epochs")[0], f"{row['flops']:.1%}", f"{size:.1%}", f"{row['straight']:.1%}",
            f"{row['reestimated']:.1%}", trained, f"{row['latency']:.2f}", f"{row['seconds']:.2f} s")  # fmt: skip


ABOUT_LANGUAGE = """\
## A language model without a fifth of its parameters

Heads and neurons leave the Llama of four domains until {params:.0%} of its parameters are left. Perplexity straight after on
{windows} windows of validation text of every domain, calibrated with {tokens:,} tokens of all four. "fit" and "obspa" refit the
layers that lost columns; "obspa-costs" is its choice without the fit.
"""


def language_section(results: Path = RESULTS) -> str:
    """The section on the language model as Markdown.

    Raises:
        BadInput: there are no results.
    """
    rows = read_rows(results / LANGUAGE)[0] if (results / LANGUAGE).is_file() else []
    rows = sorted((row for row in rows if row["status"] == "done"), key=lambda row: row["mean"])
    if not rows:
        raise BadInput(f"no results in {str(results)!r}: run python -m benchmarks.structured.language first")
    domains = list(rows[0]["perplexity"])
    pruned = [row for row in rows if row["params"] < 1]
    introduction = ABOUT_LANGUAGE.format(params=max(round(row["params"], 2) for row in pruned or rows),
                                         windows=rows[0]["windows"], tokens=rows[0]["calibration_tokens"])  # fmt: skip
    head = ("run", "parameters", "geometric mean", *domains, "seconds")
    return "\n".join([introduction, Table(head, (tuple(_domains(row, domains) for row in rows),), left=1).markdown()])


def _domains(row: dict[str, Any], domains: list[str]) -> tuple[str, ...]:
    each = (f"{row['perplexity'][domain]:.2f}" for domain in domains)
    return (row["run"], f"{row['params']:.1%}", f"{row['mean']:.2f}", *each, f"{row['seconds']:.0f} s")
