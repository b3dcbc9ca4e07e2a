"""A small task that trains in milliseconds, and the runs on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.comparing.spec import Arm, Dense, Optimizer, Point, Run, Task


def build(hidden: int = 12, width: float | None = None) -> nn.Module:
    size = int(width or hidden)
    return nn.Sequential(nn.Linear(6, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(0.1), nn.Linear(size, 3))


def data(examples: int = 200) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    x, way = torch.randn(examples, 6, generator=draw), torch.randn(6, 3, generator=draw)
    y = (x @ way).argmax(1)
    parts = {"train": slice(0, 120), "validation": slice(120, 160), "test": slice(160, None)}
    return {name: (x[part], y[part]) for name, part in parts.items()}


def jitter(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]


TASK = Task("toy", build, data, steps=9, width=12, widths=tuple(range(1, 13)), dense=Dense(12, optimizer=Optimizer(lr=0.05)),
            batch=16, transform=jitter, optimizer=Optimizer(lr=0.02, rate="cosine", warmup=0.2), calibration=2)  # fmt: skip
GMP = {"method": "gmp", "begin": 0.1, "end": 0.7, "every": 2}
HALF = Point(sparsity=0.5)


def start(task: Task = TASK, seed: int = 0) -> Run:
    return Run("toys", task, Arm("start", "start"), None, seed)


def run(protocol: str = "prune", task: Task = TASK, point: Point | None = HALF, seed: int = 0, **settings: Any) -> Run:
    """A run that begins with the start of its task and seed."""
    arm = {name: settings.pop(name) for name in ("rounds", "cap") if name in settings}
    needs = (start(task, seed).name,) if task.dense and protocol != "small-dense" else ()
    return Run("toys", task, Arm(f"{protocol} {settings}", protocol, settings=settings, **arm), point, seed, needs)


def masked(protocol: str, of: Run, **arm: Any) -> Run:
    """A run that takes the masks of another."""
    return dataclasses.replace(of, arm=Arm(f"{protocol} of it", protocol, of=of.arm.name, **arm), needs=(of.name,))


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """What must be the same however often a run was killed."""
    return {key: value for key, value in row.items() if key not in ("seconds", "latency", "versions")}


def weights(folder: Path, name: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "weights" / f"{name}.safetensors")
