"""Time that gradual pruning adds to a training step, beside ``torch.nn.utils.prune`` and the same loop without either.

The three loops run in one process, taking turns step by step, so that whatever else the machine does hits all of them alike.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import secateurs as sc
from benchmarks.nets.resnet import ResNet
from benchmarks.nets.wordlm import WordLM

__all__ = ["TASKS", "loop", "measure"]

EVERY = 100
Step = Callable[[], None]
Build = Callable[[int], tuple[nn.Module, Callable[[nn.Module], Tensor]]]
Wrap = Callable[[nn.Module, torch.optim.Optimizer, int, float], Step]


def _resnet(batch: int) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    return ResNet(56), lambda model: F.cross_entropy(model(images), labels)


def _lstm(width: int, unroll: int, batch: int) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    words = torch.randint(0, 10_000, (unroll + 1, batch))
    model = WordLM(width)
    start = model.start(batch)
    return model, lambda model: F.cross_entropy(model(words[:-1], start)[0].flatten(0, 1), words[1:].flatten())


TASKS = {"resnet-56": (_resnet, 32), "lstm-200": (functools.partial(_lstm, 200, 20), 20),
         "lstm-650": (functools.partial(_lstm, 650, 35), 20)}  # fmt: skip


def measure(task: str, steps: int = 300, warm: int = 10, sparsity: float = 0.9) -> dict[str, Any]:
    """Seconds per step of every loop over ``steps`` steps, mask updates included, and their ratios to the plain loop."""
    build, batch = TASKS[task]
    loops = {name: loop(build, batch, wrap, steps + warm, sparsity) for name, wrap in WRAPS.items()}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(steps + warm):
        for name in list(loops) if i % 2 else list(reversed(loops)):
            began = time.perf_counter()
            loops[name]()
            if i >= warm:
                times[name].append(time.perf_counter() - began)
    plain = times["plain"]
    rows = {name: _row(seconds, plain) for name, seconds in times.items()}
    return {"task": task, "batch": batch, "steps": steps, "every": EVERY, "sparsity": sparsity, "loops": rows}


def _row(seconds: list[float], plain: list[float]) -> dict[str, float]:
    """Mean over all steps (updates included), and the ratio of the means with its spread over ten stretches of the run."""
    stretch = len(seconds) // 10
    parts = [slice(i, i + stretch) for i in range(0, 10 * stretch, stretch)]
    low, _, high = statistics.quantiles([statistics.mean(seconds[p]) / statistics.mean(plain[p]) for p in parts], n=4)
    mean, median = statistics.mean(seconds), statistics.median(seconds)
    return {"mean_s": mean, "median_s": median, "ratio_of_means": mean / statistics.mean(plain),
            "ratio_of_medians": median / statistics.median(plain), "ratio_low": low, "ratio_high": high}  # fmt: skip


def loop(build: Build, batch: int, wrap: Wrap, total: int, sparsity: float) -> Step:
    """One step of training from seed 0 at a call; ``wrap`` adds what prunes, for ``total`` steps."""
    torch.manual_seed(0)
    model, loss = build(batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    after = wrap(model, optimizer, total, sparsity)

    def step() -> None:
        optimizer.zero_grad()
        loss(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        after()

    return step


def _plain(model: nn.Module, optimizer: torch.optim.Optimizer, total: int, sparsity: float) -> Step:
    return lambda: None


def _pruner(model: nn.Module, total: int, sparsity: float, enforcement: str = "keep") -> sc.Pruner:
    return sc.Pruner(model, "gmp", sparsity=sparsity, end=total, every=EVERY, total_steps=total, enforcement=enforcement)


def _gmp(enforcement: str) -> Wrap:
    def wrap(model: nn.Module, optimizer: torch.optim.Optimizer, total: int, sparsity: float) -> Step:
        _pruner(model, total, sparsity, enforcement).attach(optimizer)
        return lambda: None

    return wrap


def _torch_masks(model: nn.Module, optimizer: torch.optim.Optimizer, total: int, sparsity: float) -> Step:
    """``torch.nn.utils.prune`` on the same weights, its masks ranked by its own L1 rule every 100 steps to the same amounts."""
    chosen = [(site.module, site.attribute) for weight in sc.survey(model).weights for site in weight.sites[:1]]
    schedule = _pruner(model, total, sparsity).schedule
    count = 0
    for module, name in chosen:
        torch_prune.identity(module, name)

    def after() -> None:
        nonlocal count
        count += 1
        if schedule.is_update(count):
            for module, name in chosen:
                mask, weight = getattr(module, f"{name}_mask"), getattr(module, f"{name}_orig").detach()
                rule = torch_prune.L1Unstructured(round(schedule.sparsity(count) * mask.numel()))
                mask.copy_(rule.compute_mask(weight, torch.ones_like(mask)))

    return after


WRAPS = {"plain": _plain, "gmp keep": _gmp("keep"), "gmp overwrite": _gmp("overwrite"), "torch.nn.utils.prune": _torch_masks}
