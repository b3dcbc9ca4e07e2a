"""Time of mask updates and of weights exchanged for dead ones, as a share of the time of training between two of them.

A loop with a pruner and one without take turns step by step. In the first, updates come every few steps, so that many are seen
soon; what one takes is by how much longer its step is than the other loop's, less what any step takes longer under the masks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import secateurs as sc
from benchmarks.engine.step import EVERY, TASKS, loop

__all__ = ["METHODS", "SPACING", "Seen", "updates"]

SPACING = 5  # steps between updates here; what is reported is the share of training at EVERY
METHODS: dict[str, dict[str, Any]] = {
    "gmp": {"method": "gmp"},
    "gmp, global": {"method": "gmp", "options": {"order": "global"}},
    "set": {"method": "set"},
    "rigl": {"method": "rigl"},
    "granet": {"method": "granet", "initial_sparsity": 0.5},
}


def updates(task: str, count: int = 6, sparsity: float = 0.9) -> dict[str, Any]:
    """Processor seconds of a plain step and of every method's update, over ``count`` updates."""
    build, batch = TASKS[task]
    steps = SPACING * count + SPACING - 1
    plain = loop(build, batch, lambda *_: lambda: None, steps, sparsity)
    seen = {name: Seen(said, sparsity, 2 * steps) for name, said in METHODS.items()}  # SET and RigL exchange in the first half
    for one in seen.values():
        one.step = loop(build, batch, one.wrap, steps, sparsity)
    dense: list[float] = []
    for _ in range(steps):
        dense.append(_seconds(plain))
        for one in seen.values():
            one.times.append(_seconds(one.step))
    step = statistics.median(dense)
    weights = sum(w.size for w in next(iter(seen.values())).pruner.weights)
    rows = {name: one.row(dense, step) for name, one in seen.items()}
    return {"task": task, "batch": batch, "weights": weights, "sparsity": sparsity, "every": EVERY, "spacing": SPACING,
            "updates": count, "step_s": step, "methods": rows}  # fmt: skip


class Seen:
    """A loop with a pruner, and the seconds of its steps."""

    step: Callable[[], None]
    pruner: sc.Pruner

    def __init__(self, said: dict[str, Any], sparsity: float, total: int):
        self.said = {"sparsity": sparsity, "every": SPACING, "total_steps": total, **said}
        self.times: list[float] = []

    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer, *_: Any) -> Callable[[], None]:
        self.pruner = sc.Pruner(model, **self.said).attach(optimizer)
        return lambda: None

    def row(self, dense: list[float], step: float) -> dict[str, float]:
        """The first step, which allocates, and the updates at step 0 are left out."""
        longer = [mine - its for mine, its in zip(self.times, dense, strict=True)]
        at = range(SPACING - 1, len(longer), SPACING)
        usual = statistics.median(longer[i] for i in range(1, len(longer)) if i not in at)
        taken = [longer[i] - usual for i in at]
        low, middle, high = statistics.quantiles(taken, n=4)
        return {"update_s": middle, "share": middle / (EVERY * step), "share_low": low / (EVERY * step),
                "share_high": high / (EVERY * step), "usual_s": usual}  # fmt: skip


def _seconds(call: Callable[[], None]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began
