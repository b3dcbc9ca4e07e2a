"""Secateurs at a share of ResNet-56's multiply-adds: ``python -m benchmarks.structured.ours``."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import secateurs as sc
from benchmarks.structured.run import Side, main
from benchmarks.structured.task import EXAMPLE, Cut, Judge
from secateurs.apply import shrink, verify_shrunk
from secateurs.apply.patching import resize
from secateurs.measure import multiply_adds
from secateurs.recipe import Recipe
from secateurs.train.structured import Run

_FIT = {"recovery": "reconstruct"}
#: Name of a run -> the method, and settings beside its defaults.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random-channels", {}),
    "l1-filters": ("l1-filters", {}),
    "depgraph": ("depgraph", {}),
    "magnitude": ("channels", {"scope": "global"}),
    "taylor": ("taylor-channels", {}),
    "depgraph+fit": ("depgraph", _FIT),
    "magnitude+fit": ("channels", {"scope": "global", **_FIT}),
    "taylor+fit": ("taylor-channels", _FIT),
    "obspa-costs": ("obspa", {"recovery": "none"}),
    "obspa": ("obspa", {}),
    "obspa-all": ("obspa", {"options": {"layers": "all"}}),
    "obspa-noise": ("obspa", {"options": {"source": "noise"}}),
}
#: Runs that cut the first convolution, and so the residual sums, before the channels inside the blocks: below 16 channels, and
#: at multiples of 8 inside, convolutions are quickest here. By name: the share of it, and the rest as in :data:`RUNS`.
AFTER_STEM: dict[str, tuple[float, str, dict[str, Any]]] = {
    "obspa-8": (0.125, "obspa", {"scope": "local", "round_to": 8}),
    "obspa-8-less": (0.125, "obspa", {"scope": "local", "round_to": 8, "flops": 0.45}),
}
IMAGES = 4  # batches of calibration images, 512


class Ours(Side):
    """This library's methods."""

    file = "secateurs.jsonl"

    def names(self) -> Iterator[str]:
        """``run-where``."""
        yield from (f"{run}-{where}" for where in ("whole", "inside") for run in RUNS)
        yield from (f"{run}-stem" for run in AFTER_STEM)

    @property
    def tool(self) -> str:
        """With its version."""
        return f"secateurs {sc.__version__}"

    def cut(self, name: str, judge: Judge, flops: float) -> Cut:
        """Prune a copy to ``flops`` of its multiply-adds, in the steps of :func:`secateurs.prune`, each timed.

        Planning and cutting are what gives the smaller network: scores, with the statistics and the fit where a run has them,
        counts that meet the budget, and tensors cut into a copy (what a plain copy takes is told too); where the result is the
        traced program, that is written anew. The proof is everything else but tracing: the smaller program, and both compared
        in float64.
        """
        run, _, where = name.rpartition("-")
        if where == "stem":
            share, method, settings = AFTER_STEM[run]
            first = _cut(judge.dense, method, judge, ratio=share, include=("conv1.weight:0*",))
            flops = settings.get("flops", flops) * judge.multiply_adds / multiply_adds(first.model, torch.randn(EXAMPLE)).dense
            then = _cut(first.model, method, judge, exclude=_residual(), **{**settings, "flops": flops})
            more = {key: first.more[key] + then.more[key] for key in ("copy_seconds", "proof_seconds")}
            return Cut(then.model, first.seconds + then.seconds, {**then.more, **more})
        method, settings = RUNS[run]
        return _cut(judge.dense, method, judge, flops=flops, exclude=_residual() if where == "inside" else (), **settings)


def _cut(model: nn.Module, method: str, judge: Judge, **settings: Any) -> Cut:
    noise = settings.get("options", {}).get("source") == "noise"
    recipe = Recipe.of(method, {"structures": ["channels"], **settings})
    run = Run.of(model, recipe, torch.randn(EXAMPLE), None if noise else judge.images[:IMAGES])
    clock = _Clock()
    planned = run.plan()
    rebuilt = run.recover(planned)
    source = run.model if rebuilt is None else rebuilt.model
    resize(source, run.graph, planned.keeps)
    seconds = clock.seconds()
    copy.deepcopy(source)
    copying = clock.seconds()
    done = shrink(source, run.graph, planned.keeps)
    seconds += clock.seconds() if done.is_exported else 0.0
    verify_shrunk(source, done, run.graph, planned.keeps).require()
    more = {"copy_seconds": copying, "proof_seconds": clock.seconds(), "exported": done.is_exported}
    return Cut(done.model, seconds, more)


class _Clock:
    """Seconds of processor time since it was last asked."""

    def __init__(self) -> None:
        self.began = time.process_time()

    def seconds(self) -> float:
        began, self.began = self.began, time.process_time()
        return self.began - began


def _residual() -> tuple[str, ...]:
    """The groups of channels that lie on the residual sums, by their producers: excluded, they stay."""
    return ("conv1.weight:0*", "layer*.conv2.weight:0*")


if __name__ == "__main__":
    raise SystemExit(main(Ours()))
