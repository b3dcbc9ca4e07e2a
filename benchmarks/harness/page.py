"""The harness's section of the results page, from ``benchmarks/results/harness.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.circumstances import measurements
from benchmarks.harness.run import RESULTS

__all__ = ["section"]


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    found = measurements(results, "benchmarks.harness.run")
    lines = [_overhead(part) for name, part in found.items() if name.startswith("overhead ")]
    lines += [say(found[name]) for name, say in (("jobs", _jobs), ("report", _report)) if name in found]
    return "\n".join(["## What the comparison harness costs\n", *lines]) + "\n"


def _overhead(found: Mapping[str, Any]) -> str:
    return (f"- {found['task']}, {found['steps']:,} steps of {found['batch']}: a run of the harness takes "
            f"{found['ratio_median']:.3f} times ({found['ratio_low']:.3f} to {found['ratio_high']:.3f}) the same training and "
            f"evaluation written by hand, in {found['repeats']} pairs of runs.")  # fmt: skip


def _jobs(found: Mapping[str, Any]) -> str:
    return (f"- Two single-threaded runs of {found['task']} with `--jobs 2` finish {found['ratio_median']:.2f} times "
            f"({found['ratio_low']:.2f} to {found['ratio_high']:.2f}) as fast as with `--jobs 1`, on {found['cpus']} "
            "processors, the starting of processes included.")  # fmt: skip


def _report(found: Mapping[str, Any]) -> str:
    return (f"- A results file of {found['runs']} runs is read and its page, pictures and tables are written in "
            f"{found['inside_median_s']:.2f} s; the whole `secateurs report`, from the start of Python, takes "
            f"{found['command_median_s']:.2f} s.")  # fmt: skip
