"""The solver's section of the results page, from ``benchmarks/results/solver.json`` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.circumstances import measurements
from benchmarks.solver.run import RESULTS
from secateurs.report import Table

__all__ = ["RESULTS", "section"]

HEAD = ("outputs x inputs", "step", "published", "here", "times faster")
STEPS = (
    ("factor of the Hessian", "published factor", "factor", "factor"),
    ("columns, mask given", "published, mask given", "mask given", "columns, mask given"),
    ("columns, mask chosen", "published, mask chosen", "mask chosen", "columns, mask chosen"),
    ("both, mask given", None, None, "whole, mask given"),
    ("both, mask chosen", None, None, "whole, mask chosen"),
)
INTRODUCTION = """\
### SparseGPT's solver beside the published loop

One layer of random weights at {sparsity:.0%} on {threads} thread(s), the two in turn {repeats} times in one process. For one
and the same mask the weights differ by at most {difference:.1g} of their norm. Medians, of the ratios with least and most.
"""


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    found = measurements(results, "benchmarks.solver.run")
    difference = max(part["relative_difference"] for part in found.values())
    first = next(iter(found.values()))
    lines = tuple(line for part in found.values() for line in _lines(part))
    return INTRODUCTION.format(difference=difference, **first) + "\n" + Table(HEAD, (lines,), 2).markdown()


def _lines(part: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for words, theirs, ours, ratio in STEPS:
        spread = part["ratios"][ratio]
        seconds = [f"{part['seconds'][key]['median']:.2f} s" if key else "" for key in (theirs, ours)]
        yield (f"{part['rows']} x {part['columns']}", words, *seconds,
               f"{spread['median']:.2f} ({spread['least']:.2f} to {spread['most']:.2f})")  # fmt: skip
