"""A run through the harness beside the same training written by hand: the same pruner, batches and final evaluation."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs as sc
from benchmarks.tasks import cifar, mnist
from secateurs.comparing.metrics import METRICS
from secateurs.comparing.running.data import wrap
from secateurs.comparing.running.execute import execute
from secateurs.comparing.spec import Arm, Optimizer, Point, Run, Task

__all__ = ["TASKS", "overhead"]

SPARSITY, EVERY = 0.9, 20
_SGD = Optimizer("sgd", 0.1, 0.9, weight_decay=5e-4, rate="constant")
TASKS = {
    "mnist-lenet-300-100": Task("mnist-lenet-300-100", mnist.lenet300, mnist.data, 3000, batch=100, optimizer=_SGD),
    "cifar10-resnet8": Task("cifar10-resnet8", cifar.resnet, cifar.data, 400, batch=64, transform=cifar.augmented,
                            autocast=True, optimizer=_SGD),
}  # fmt: skip


def overhead(name: str, repeats: int = 5, steps: int | None = None) -> dict[str, Any]:
    """Seconds of ``repeats`` runs of a task each way, in turns, with one thread.

    The data is loaded before, and what the harness checks once per task and process (a deterministic model, test data apart
    from training data) is checked before.
    """
    task = TASKS[name] if steps is None else replace(TASKS[name], steps=steps)
    torch.set_num_threads(1)
    by_harness(replace(task, steps=2))
    seconds: dict[str, list[float]] = {"by hand": [], "harness": []}
    for i in range(repeats):
        ways = [("by hand", by_hand), ("harness", by_harness)]
        for way, run in ways if i % 2 else reversed(ways):
            began = time.perf_counter()
            run(task)
            seconds[way].append(time.perf_counter() - began)
    ratios = sorted(b / a for a, b in zip(*seconds.values(), strict=True))
    return {"task": name, "steps": task.steps, "batch": task.batch, "repeats": repeats, "seconds": seconds,
            "ratio_median": statistics.median(ratios), "ratio_low": ratios[0], "ratio_high": ratios[-1]}  # fmt: skip


def by_harness(task: Task) -> float:
    """The test metric of a run of the harness, which also counts, measures and records it."""
    arm = Arm("gmp", settings={"method": "gmp", "begin": 0.1, "end": 0.65, "every": EVERY})
    with tempfile.TemporaryDirectory() as folder:
        return execute(Run("overhead", task, arm, Point(sparsity=SPARSITY), seed=0), Path(folder))["value"]


def by_hand(task: Task) -> float:
    """The test metric of a plain training loop."""
    torch.manual_seed(0)
    model: nn.Module = task.model()  # type: ignore[operator]
    splits = wrap(task.data(), task.name)  # type: ignore[operator]
    optimizer = torch.optim.SGD(model.parameters(), _SGD.lr, _SGD.momentum, weight_decay=_SGD.weight_decay)
    pruner = sc.Pruner(model, "gmp", sparsity=SPARSITY, begin=0.1, end=0.65, every=EVERY, total_steps=task.steps)
    pruner.attach(optimizer)
    model.train()
    for index in _indices(len(splits["train"]), task.batch, task.steps):
        images, classes = splits["train"].batch(index)
        if callable(task.transform):
            images, classes = task.transform((images, classes))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if task.autocast else nullcontext():
            logits = model(images)
        F.cross_entropy(logits.float(), classes).backward()
        optimizer.step()
    return METRICS["top-1"].measure(pruner.finish(), splits["test"])


def _indices(examples: int, batch: int, steps: int) -> Iterator[Tensor]:
    for step in range(steps):
        at = step % (examples // batch)
        order = torch.randperm(examples) if at == 0 else order  # noqa: F821 - the first step draws it
        yield order[at * batch : (at + 1) * batch]
