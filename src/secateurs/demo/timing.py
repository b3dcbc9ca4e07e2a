"""Latency of the networks of an experiment, measured together once nothing else of it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.demo.data import digits
from secateurs.demo.network import build
from secateurs.demo.results import Results
from secateurs.formats import load
from secateurs.measure import compare_latency
from secateurs.measure.mode import computing_with
from secateurs.report import group
from secateurs.report.rows import Row

__all__ = ["measure_latency"]

_BATCH = 256


def measure_latency(rows: Sequence[Row], models: Path, results: Results, repeats: int) -> dict[str, Any]:
    """Median and quartile range of ``repeats`` calls in seconds, by label: networks in turns, of each that of the first seed.

    Seeds of a label have one architecture and one number of zeros. A set of networks measured before is not measured again.
    """
    firsts = {label: runs[0] for label, runs in group(rows).items()}
    id = hashlib.sha256("".join([f"latency {repeats}", *(row["id"] for row in firsts.values())]).encode()).hexdigest()
    if id not in results:
        images = digits().test.images[:_BATCH]
        calls = {label: _call(models / row["model"], row["width"], images) for label, row in firsts.items()}
        with torch.no_grad(), computing_with(threads=1):
            timed = compare_latency(calls, repeats=repeats)
        medians = {label: time.median_s for label, time in timed.items()}
        spreads = {label: time.iqr_s for label, time in timed.items()}
        facts = {"batch": _BATCH, "repeats": repeats, "threads": 1}
        results.add({"kind": "latency", "id": id, **facts, "median_s": medians, "iqr_s": spreads})
    return results[id]


def _call(folder: Path, width: int, images: Tensor) -> Callable[[], Tensor]:
    model: nn.Module = load(folder, factory=partial(build, width)).eval()
    return lambda: model(images)
