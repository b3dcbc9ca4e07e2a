"""Trains a small network in child processes: once undisturbed, and once killed again and again with SIGKILL.

    python resume.py FOLDER CASES      CASES: JSON list of {"name", "recipe", "optimizer", "kills": [[step, phase], ...]}

A child reports every (step, phase) and goes on only when told to; the parent kills it where the case says. Left behind are
``FOLDER/<name>/whole.pt`` and ``killed.pt`` (what each run ended with) and ``signals.json`` (how each child ended).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateurs as sc

STEPS, EVERY, BATCH = 20, 3, 8
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}


def network() -> nn.Sequential:
    convolutions = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 4))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(44, 1, 8, 8, generator=generator), torch.randint(0, 4, (44,), generator=generator)


class Run:
    """Everything a training run consists of, and its checkpoint."""

    def __init__(self, case: dict[str, Any], file: Path):
        torch.manual_seed(5)
        self.file, self.step, self.position, self.order = file, 0, 0, torch.randperm(44)
        self.model = network()
        self.optimizer = OPTIMIZERS[case["optimizer"]](self.model.parameters())
        self.pruner = sc.Pruner(self.model, "gmp", total_steps=STEPS, **case["recipe"])
        attach_first = case.get("attach_first", False)
        if attach_first:
            self.pruner.attach(self.optimizer)
        if file.exists():
            self.load()
        if not attach_first:
            self.pruner.attach(self.optimizer)

    def load(self) -> None:
        saved = torch.load(self.file, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.pruner.load_state_dict(saved["pruner"])
        torch.set_rng_state(saved["random"])
        self.step, self.position, self.order = saved["step"], saved["position"], saved["order"]

    def save(self, report: Callable[[int, str], None]) -> None:
        beside = self.file.with_suffix(".new")
        states = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "pruner")}
        place = {"random": torch.get_rng_state(), "step": self.step, "position": self.position, "order": self.order}
        torch.save(states | place, beside)
        report(self.step, "written")
        os.replace(beside, self.file)
        report(self.step, "saved")

    def batch(self) -> torch.Tensor:
        if self.position + BATCH > len(self.order):
            self.position, self.order = 0, torch.randperm(44)
        self.position += BATCH
        return self.order[self.position - BATCH : self.position]

    def train(self, report: Callable[[int, str], None]) -> None:
        images, labels = data()
        while self.step < STEPS:
            chosen = self.batch()
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(images[chosen]), labels[chosen]).backward()
            report(self.step + 1, "backward")
            self.optimizer.step()
            self.step += 1
            report(self.step, "stepped")
            if self.step % EVERY == 0:
                self.save(report)


def child(case: dict[str, Any], folder: Path, name: str, ask: Callable[[int, str], None]) -> None:
    run = Run(case, folder / f"{name}.checkpoint")
    run.train(ask)
    pruner = run.pruner
    masks = {key: mask.clone() for key, mask in pruner.masks.items()}
    end = {"stored": {key: value.clone() for key, value in run.model.state_dict().items()}, "masks": masks,
           "history": pruner.history, "density": pruner.average_density, "state": pruner.state_dict()["method"]}  # fmt: skip
    torch.save({**end, "finished": pruner.finish().state_dict()}, folder / f"{name}.pt")


def attempt(case: dict[str, Any], folder: Path, name: str, kill: list[Any] | None) -> int:
    """Run one child until it ends or is killed at ``kill``; its exit code, negative for a signal."""
    told, tell = os.pipe()
    heard, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        os.close(heard)

        def ask(step: int, phase: str) -> None:
            os.write(say, f"{json.dumps([step, phase])}\n".encode())
            os.read(told, 1)

        code = 1
        try:
            child(case, folder, name, ask)
            code = 0
        finally:
            os._exit(code)
    os.close(say)
    os.close(told)
    with os.fdopen(heard) as lines:
        for line in lines:
            if json.loads(line) == kill:
                os.kill(pid, signal.SIGKILL)
                break
            os.write(tell, b"g")
    os.close(tell)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def warm_up() -> None:
    """Let torch import what it imports late, once and not in every child. No backward pass: that would start threads."""
    model = network()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sc.Pruner(model, "gmp", sparsity=0.5, end=1).attach(optimizer)
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    torch.set_num_threads(1)
    warm_up()
    for case in json.loads(sys.argv[2]):
        folder = Path(sys.argv[1]) / case["name"]
        folder.mkdir()
        whole = attempt(case, folder, "whole", None)
        ends = [attempt(case, folder, "killed", kill) for kill in [*case["kills"], None]]
        (folder / "signals.json").write_text(json.dumps([whole, *ends]))


if __name__ == "__main__":
    main()
