"""Torch-Pruning at a share of ResNet-56's multiply-adds: ``python -m benchmarks.structured.peer``, in an environment with it.

The smallest channel ratio whose one step reaches the share is found by bisection, and only that one step is timed, in place:
its own scripts take many small steps and count after each, which is slower. All of its criteria that apply, ranked over all
layers or in each, with whole coupled groups or only the channels inside the blocks.
"""

from __future__ import annotations

import copy
import importlib.metadata
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.structured.run import Side, main
from benchmarks.structured.task import EXAMPLE, Cut, Judge
from secateurs.measure import multiply_adds

BISECTIONS = 8
MOST = 0.9  # of a layer's channels


class Peer(Side):
    """Its criteria by its own names."""

    file = "torch-pruning.jsonl"

    def names(self) -> Iterator[str]:
        """``criterion-where-scope``."""
        for where in ("whole", "inside"):
            for scope in ("global", "local"):
                for criterion in ("magnitude", "l1", "bn-scale", "lamp", "fpgm", "taylor", "hessian", "random"):
                    yield f"{criterion}-{where}-{scope}"

    @property
    def tool(self) -> str:
        """With its version."""
        return f"torch-pruning {importlib.metadata.version('torch-pruning')}"

    def cut(self, name: str, judge: Judge, flops: float) -> Cut:
        """Prune a copy as little as reaches ``flops``."""
        torch.manual_seed(0)
        began = time.process_time()
        most, least = 1.0, 0.0
        for _ in range(BISECTIONS):
            ratio = (most + least) / 2
            if multiply_adds(self._once(name, judge, ratio).model, torch.randn(EXAMPLE)).dense <= flops * judge.multiply_adds:
                most = ratio
            else:
                least = ratio
        done = self._once(name, judge, most)
        return replace(done, more={"search_seconds": time.process_time() - began})

    def _once(self, name: str, judge: Judge, ratio: float) -> Cut:
        """One step at ``ratio``; the dependency graph is built, and gradients are taken, before the clock starts."""
        import torch_pruning as tp

        criterion, where, scope = name.rsplit("-", 2)
        model: Any = copy.deepcopy(judge.dense)
        kept: list[nn.Module] = [model.linear]
        if where == "inside":
            kept += [model.conv1, *(block.conv2 for layer in (model.layer1, model.layer2, model.layer3) for block in layer)]
        importance = _importance(criterion)
        pruner = tp.pruner.BasePruner(
            model, torch.randn(EXAMPLE), importance=importance, global_pruning=scope == "global", pruning_ratio=ratio,
            max_pruning_ratio=MOST, ignored_layers=kept,
        )  # fmt: skip
        _differentiate(model, judge, criterion, importance)
        began = time.process_time()
        pruner.step()
        seconds = time.process_time() - began
        model.zero_grad()
        return Cut(model, seconds)


def _importance(name: str) -> Any:
    import torch_pruning as tp

    kinds = {"magnitude": lambda: tp.importance.MagnitudeImportance(p=2), "l1": lambda: tp.importance.MagnitudeImportance(p=1),
             "bn-scale": tp.importance.BNScaleImportance, "lamp": tp.importance.LAMPImportance,
             "fpgm": tp.importance.FPGMImportance, "taylor": tp.importance.TaylorImportance,
             "hessian": tp.importance.HessianImportance, "random": tp.importance.RandomImportance}  # fmt: skip
    return kinds[name]()


def _differentiate(model: nn.Module, judge: Judge, criterion: str, importance: Any) -> None:
    """Gradients of the loss on a batch of the calibration images; of single images for the Hessian's diagonal."""
    x, labels = judge.images[0]
    if criterion == "taylor":
        F.cross_entropy(model(x), labels).backward()
    elif criterion == "hessian":
        importance.zero_grad()
        for loss in F.cross_entropy(model(x[:16]), labels[:16], reduction="none"):
            model.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(model)


if __name__ == "__main__":
    raise SystemExit(main(Peer()))
