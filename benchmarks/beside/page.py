"""The section of the results page about pruning beside llm-compressor, from ``benchmarks/results/beside.json`` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.beside.run import RESULTS
from benchmarks.circumstances import measurements
from secateurs.report import Table

__all__ = ["section"]

HEAD = ("method", "pruned", "by", "zeros", "mean perplexity", "seconds", "times faster", "peak memory")
INTRODUCTION = """\
### Beside llm-compressor

The same model, calibration windows and number of threads ({threads}), the libraries in turn {repeats} times, {batch} windows at
once; llm-compressor 0.14 with its sequential pipeline. Seconds are those of the pruning itself, a model in memory before and
after; memory is the most the process held by itself (no pages of files) meanwhile. Medians, with least and most.
"""


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    found = measurements(results, "benchmarks.beside.run")
    first = next(iter(found.values()))
    lines = tuple(line for part in found.values() for line in _lines(part))
    return INTRODUCTION.format(**first) + "\n" + Table(HEAD, (lines,), 3).markdown()


def _lines(part: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for arm, row in part["arms"].items():
        point = part["point"] if ":" in part["point"] else f"{float(part['point']):.0%}".replace("%", " %")
        yield (part["method"], point, arm, f"{row['zeros']:.4f}", f"{row['geometric_mean']:.2f}", _spread(row["seconds"], 1),
               _spread(row["times_faster"], 2) if arm != "llm-compressor" else "",
               f"{row['peak_bytes']['median'] / 1e6:.0f} MB")  # fmt: skip


def _spread(values: Mapping[str, float], digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['least']:.{digits}f} to {values['most']:.{digits}f})"
