"""One model of the grid: pruned, its zeros counted, its perplexity measured on every domain."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from torch import nn

import secateurs as sc
from benchmarks.circumstances import circumstances
from benchmarks.language import text
from benchmarks.language.grid import DENSE, DOMAINS, POINTS, UNIFORM, Cell
from secateurs.comparing.processes.jobs import Tell
from secateurs.comparing.spec import SCHEMA
from secateurs.measure import perplexity

__all__ = ["BLOCKS", "execute", "failed"]

BLOCKS = "model.layers.*"  # magnitude would prune the embedding too, which is the output layer as well


def execute(cell: Cell, folder: Path, tell: Tell) -> dict[str, Any]:
    """The row of ``cell``."""
    model, facts = (text.dense(), {}) if cell.method == DENSE else _pruned(cell)
    found = {domain: text.validation(domain, cell.windows) for domain in DOMAINS}
    values = {domain: perplexity(model, batches) for domain, batches in found.items()}
    counts = {domain: sum(len(batch["input_ids"]) for batch in batches) for domain, batches in found.items()}
    mean = math.exp(sum(map(math.log, values.values())) / len(values))
    return {**_head(cell, "done"), "perplexity": values, "geometric_mean": mean, "windows": counts, "length": text.LENGTH,
            **facts, **circumstances()}  # fmt: skip


def failed(cell: Cell, error: BaseException, seconds: float) -> dict[str, Any]:
    """The row of a cell that ended in ``error``."""
    return {**_head(cell, "failed"), "error": {"type": type(error).__name__, "message": str(error)}, "seconds": seconds}


def _head(cell: Cell, status: str) -> dict[str, Any]:
    return {"schema": SCHEMA, "run": cell.name, "status": status, "method": cell.method, "point": cell.point,
            "calibration": cell.calibration, "seed": cell.seed, "allocation": cell.allocation,
            "most_windows": cell.windows}  # fmt: skip


def _pruned(cell: Cell) -> tuple[nn.Module, dict[str, Any]]:
    """The pruned model; the seconds it took, text and copying left out of them, and its zeros."""
    assert cell.point is not None
    batches = None if cell.calibration is None else text.calibration(cell.calibration, cell.seed)
    began = time.perf_counter()
    done = sc.prune(text.dense(), cell.method, calibration=batches, include=(BLOCKS,), **POINTS[cell.point],
                    **({} if cell.allocation == UNIFORM else {"allocation": cell.allocation}))  # fmt: skip
    seconds = time.perf_counter() - began
    weights = [done.model.get_parameter(name) for name in done.plan.masks]
    return done.model, {"seconds": seconds, "weights": sum(w.numel() for w in weights),
                        "zeros": sum(int((w == 0).sum()) for w in weights),
                        "tokens": 0 if batches is None else sum(b["input_ids"].numel() for b in batches)}  # fmt: skip
