"""The section on the language model of the results page, from ``benchmarks/results/structured/language.jsonl`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.structured.language import FILE
from secateurs.comparing.store import read_rows
from secateurs.errors import BadInput
from secateurs.report import Table

__all__ = ["RESULTS", "language_section"]

RESULTS = Path(__file__).parents[1] / "results" / "structured"

INTRODUCTION = """\
## A language model without a fifth of its parameters

Heads and neurons leave the Llama of four domains until at most {params:.0%} of its parameters are left. Perplexity straight
after, on {windows} windows of validation text of every domain, calibrated with {tokens:,} tokens of all four. Every layer loses
the same share of its heads and of its neurons, but for "ranked", where heads are ranked among the heads and neurons among the
neurons of all layers, and "global", where all of them are ranked together. "fit" and OBSPA refit the layers that lost columns;
"obspa-costs" is its choice without the fit. Magnitudes of different layers say little of what the layers do: where they are
ranked together, the layers of small weights lose nearly all. Seconds are those of pruning, on a machine with other work.
"""


def language_section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    rows = read_rows(results / FILE)[0] if (results / FILE).is_file() else []
    rows = sorted((row for row in rows if row["status"] == "done"), key=lambda row: row["mean"])
    if not rows:
        raise BadInput(f"no results in {str(results)!r}: run python -m benchmarks.structured.language first")
    domains = list(rows[0]["perplexity"])
    pruned = [row for row in rows if row["params"] < 1]
    introduction = INTRODUCTION.format(params=max(round(row["params"], 2) for row in pruned or rows),
                                       windows=rows[0]["windows"], tokens=rows[0]["calibration_tokens"])  # fmt: skip
    head = ("run", "parameters", "geometric mean", *domains, "seconds")
    table = Table(head, (tuple(_line(row, domains) for row in rows),), left=1).markdown()
    return "\n".join([introduction, table, *_beside({row["run"]: row["mean"] for row in rows})])


def _line(row: dict[str, Any], domains: list[str]) -> tuple[str, ...]:
    each = (f"{row['perplexity'][domain]:.2f}" for domain in domains)
    return (row["run"], f"{row['params']:.1%}", f"{row['mean']:.2f}", *each, f"{row['seconds']:.0f} s")


def _beside(means: dict[str, float]) -> list[str]:
    """OBSPA beside magnitude groups without a fit, where both were run."""
    wanted = ("obspa", "magnitude", "dense")
    if not set(wanted) <= means.keys():
        return []
    ours, plain, whole = (means[name] for name in wanted)
    return [f"Against the dense model's {whole:.2f}, OBSPA costs {ours / whole - 1:.0%} of perplexity, and magnitude groups "
            f"without a fit {plain / whole - 1:.0%}.\n"]  # fmt: skip
