"""One training run, the same loop for every family: resumable at any step, evaluated once, at its end."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateurs as sc
from benchmarks.families.cost import learned, stored_bytes
from benchmarks.families.order import mixed
from benchmarks.families.schedule import learning_rate
from benchmarks.families.setting import Run, Setting
from benchmarks.families.tasks import Task
from secateurs.measure import paper_bytes

__all__ = ["Session", "run_one"]

SAVE_EVERY = 100  # steps between checkpoints


class Session:
    """A run in progress. Everything random at a step is drawn from (seed, step), so no random state needs saving."""

    def __init__(self, run: Run, task: Task):
        self.run, self.task, self.step, self.seconds = run, task, 0, 0.0
        torch.manual_seed(run.seed)
        self.model = task.build(run.width).train()
        self.optimizer = _optimizer(self.model, run.setting)
        self.pruner = _pruner(self.model, run)
        if self.pruner is not None:
            self.pruner.attach(self.optimizer)
        self.carry = task.start(self.model)

    def advance(self) -> None:
        """One optimizer step."""
        setting, began = self.run.setting, time.perf_counter()
        torch.manual_seed(mixed(self.run.seed, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(setting, self.step)
        self.optimizer.zero_grad()
        loss, self.carry = self.task.loss(self.model, self.run.seed, self.step, self.carry)
        loss.backward()
        if setting.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), setting.clip)
        self.optimizer.step()
        self.step += 1
        self.seconds += time.perf_counter() - began

    def save(self, path: Path) -> None:
        """Write the checkpoint beside ``path``, then rename it."""
        state = {"step": self.step, "seconds": self.seconds, "model": self.model.state_dict(), "carry": self.carry,
                 "optimizer": self.optimizer.state_dict(), "pruner": self.pruner and self.pruner.state_dict()}  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        torch.save(state, beside)
        os.replace(beside, path)

    def load(self, path: Path) -> None:
        """Continue from :meth:`save`."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        self.step, self.seconds, self.carry = state["step"], state["seconds"], state["carry"]

    def record(self) -> dict[str, Any]:
        """Finish the pruning, evaluate, and say everything about the run."""
        density = 1.0 if self.pruner is None else self.pruner.average_density
        selected = None if self.pruner is None else self.pruner.sparsity
        model = (self.model if self.pruner is None else self.pruner.finish()).eval()
        state, run, setting = model.state_dict(), self.run, self.run.setting
        total, nonzero = learned(model)
        return {
            "run": run.name, "family": setting.family, "model": setting.model, "size": run.size, "width": run.width,
            "method": run.method, "sparsity": run.sparsity, "order": run.order if run.sparsity else None, "seed": run.seed,
            "data": setting.data, "metric": self.task.metric, "better": self.task.better,
            "validation": self.task.evaluate(model, "validation"), "test": self.task.evaluate(model, "test"),
            "parameters": total, "nonzeros": nonzero, "sparsity_reached": selected,
            "payload_bytes": stored_bytes(state), "paper_bytes": round(paper_bytes(total, nonzero)), "average_density": density,
            "steps": setting.steps, "batch": setting.batch, "optimizer": setting.optimizer, "lr": setting.lr,
            "weight_decay": setting.weight_decay, "clip": setting.clip, "begin": setting.begin, "end": setting.end,
            "every": setting.every, "bfloat16": setting.bfloat16, "training_seconds": round(self.seconds, 1),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "secateurs": sc.__version__},
        }  # fmt: skip


def run_one(run: Run, task: Task, checkpoint: Path, told: Callable[[int], None] = lambda step: None) -> dict[str, Any]:
    """Train ``run`` to its end, from ``checkpoint`` if there is one, and return its record; ``told`` hears of every step."""
    session = Session(run, task)
    if checkpoint.is_file():
        session.load(checkpoint)
    while session.step < run.setting.steps:
        session.advance()
        told(session.step)
        if session.step % SAVE_EVERY == 0 and session.step < run.setting.steps:
            session.save(checkpoint)
    return session.record()


def _optimizer(model: nn.Module, setting: Setting) -> torch.optim.Optimizer:
    weights, decay = [p for p in model.parameters() if p.requires_grad], setting.weight_decay
    if setting.optimizer == "adam":
        return torch.optim.Adam(weights, setting.lr, weight_decay=decay)
    return torch.optim.SGD(weights, setting.lr, setting.momentum, weight_decay=decay, nesterov=setting.momentum > 0)


def _pruner(model: nn.Module, run: Run) -> sc.Pruner | None:
    if not run.sparsity:
        return None
    s = run.setting
    return sc.Pruner(model, "gmp", sparsity=run.sparsity, begin=s.begin, end=s.end, every=s.every, total_steps=s.steps,
                     exempt=s.exempt, exclude=s.exclude, options={"order": run.order})  # fmt: skip
