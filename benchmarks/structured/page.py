"""The section on ResNet-56 of the results page, from ``benchmarks/results/structured`` alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from secateurs.comparing.store import read_rows
from secateurs.errors import BadInput
from secateurs.report import Table

__all__ = ["RESULTS", "section"]

RESULTS = Path(__file__).parents[1] / "results" / "structured"
FILES = ("secateurs.jsonl", "torch-pruning.jsonl")

INTRODUCTION = """\
## ResNet-56 with half its multiply-adds

The trained CIFAR-10 network loses channels until at most {flops:.0%} of its multiply-adds are left: by whole coupled groups
("whole"), only between the two convolutions of a block ("inside"), or an eighth of the first convolution and then inside
("stem"; "8" keeps multiples of 8, "less" goes to 45%). "fit" and "obspa" refit the layers that lost columns, without
training, by what they read on calibration images ("noise": on random numbers). Accuracy on test images is that straight
after, that after the batch norms' statistics are taken anew from {images:,} training images, and, where it was run, that
after one pass over the number of training images in brackets. The time of a batch of 64 is a share of the dense network's,
medians measured in turns on a machine with much other work, which shows.

Planning and cutting are processor seconds once the network was traced, with the statistics and the fit where a run has
them{copying}. Torch-Pruning's are those of its one step, in place, without its search for the ratio and its gradients. The
proof that the smaller network computes what the masked one does comes on top, and is only ours. An asterisk marks a result
that is the traced program, not the user's class: its seconds are those of writing that program.
"""
COPYING = ", and with copying the network, which takes {seconds:.3f} s by itself"

#: Column of the table -> key of a row, of those that are accuracies.
ACCURACIES = {"straight": "straight", "re-estimated": "reestimated", "trained": "trained"}


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    rows = [row for file in FILES if (results / file).is_file() for row in _runs(results / file)]
    rows.sort(key=lambda row: -row["reestimated"])
    if not rows:
        raise BadInput(f"no results in {str(results)!r}: run python -m benchmarks.structured.ours and .peer first")
    head = ("", "run", "multiply-adds", "parameters", *ACCURACIES, "test images", "time", "planning and cutting", "proof")
    copies = [row["copy_seconds"] for row in rows if "copy_seconds" in row]
    copying = COPYING.format(seconds=median(copies)) if copies else ""
    introduction = INTRODUCTION.format(flops=max(round(row["flops"], 2) for row in rows), images=rows[0]["calibration"],
                                       copying=copying)  # fmt: skip
    table = Table(head, (tuple(_line(row) for row in rows),), left=2).markdown()
    return "\n".join([introduction, table, "", _best(rows)])


def _runs(path: Path) -> list[dict[str, Any]]:
    """One row of every run that was done: that with the longest training, and the time measured at the lowest load."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(path)[0]:
        if row["status"] == "done":
            found.setdefault(row["run"].partition("-epochs")[0], []).append(row)
    return [{**max(rows, key=lambda row: row.get("epochs", 0)), "run": name,
             "latency": min(rows, key=lambda row: row["load"])["latency"]} for name, rows in found.items()]  # fmt: skip


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    trained = f"{row['trained']:.1%} ({row['train_images'] * row['epochs']:,})" if "trained" in row else ""
    size = row["parameters"] / row["dense_parameters"]
    proof = f"{row['proof_seconds']:.1f} s" if "proof_seconds" in row else ""
    return (row["tool"], row["run"] + "*" * row.get("exported", False), f"{row['flops']:.1%}", f"{size:.1%}",
            f"{row['straight']:.1%}", f"{row['reestimated']:.1%}", trained, f"{row['test_images']:,}", f"{row['latency']:.2f}",
            f"{row['seconds']:.3f} s", proof)  # fmt: skip


def _best(rows: list[dict[str, Any]]) -> str:
    """What the table says: the best of each library, by every accuracy and by time."""
    said = [_pair(rows, f"{column}, the most accurate", key, max, "{:.1%}") for column, key in ACCURACIES.items()]
    return "\n".join(line for line in [*said, _pair(rows, "the shortest time of a batch", "latency", min, "{:.2f}")] if line)


def _pair(rows: list[dict[str, Any]], what: str, key: str, best: Callable[..., dict[str, Any]], form: str) -> str:
    first = {tool: best((row for row in rows if row["tool"] == tool and key in row), key=lambda row: row[key])
             for tool in sorted({row["tool"] for row in rows if key in row})}  # fmt: skip
    each = (f"{tool} {form.format(row[key])} ({row['run']})" for tool, row in first.items())
    return f"- {what.capitalize()}: {'; '.join(each)}." if first else ""
