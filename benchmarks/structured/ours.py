"""Secateurs at a share of ResNet-56's multiply-adds: ``python -m benchmarks.structured.ours``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import secateurs as sc
from benchmarks.structured.run import Side, main
from benchmarks.structured.task import EXAMPLE, Cut, Judge
from secateurs.graph import trace

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
IMAGES = 4  # batches of calibration images, 512


class Ours(Side):
    """This library's methods."""

    file = "secateurs.jsonl"

    def names(self) -> Iterator[str]:
        """``run-where``."""
        return (f"{run}-{where}" for where in ("whole", "inside") for run in RUNS)

    @property
    def tool(self) -> str:
        """With its version."""
        return f"secateurs {sc.__version__}"

    def cut(self, name: str, judge: Judge, flops: float) -> Cut:
        """Prune a copy to ``flops`` of its multiply-adds; the time of tracing, measured apart, is taken off."""
        run, _, where = name.rpartition("-")
        method, settings = RUNS[run]
        example = torch.randn(EXAMPLE)
        tracing = _seconds_to_trace(judge.dense, example)
        noise = settings.get("options", {}).get("source") == "noise"
        began = time.perf_counter()
        done = sc.prune(judge.dense, method, structures=["channels"], example=example, flops=flops,
                        calibration=None if noise else judge.images[:IMAGES],
                        exclude=_residual() if where == "inside" else (), **settings)  # fmt: skip
        return Cut(done.model, time.perf_counter() - began - tracing)


def _residual() -> tuple[str, ...]:
    """The groups of channels that lie on the residual sums, by their producers: excluded, they stay."""
    return ("conv1.weight:0*", "layer*.conv2.weight:0*")


def _seconds_to_trace(model: nn.Module, example: torch.Tensor) -> float:
    began = time.perf_counter()
    trace(model, example)
    return time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main(Ours()))
