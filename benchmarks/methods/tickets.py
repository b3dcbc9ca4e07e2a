"""What the experiments on tickets share: two small tasks, their training loop, and rows that a killed run does not repeat."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks import cifar, mnist
from benchmarks.tasks.pictures import Pictures
from secateurs.comparing.running.randomness import batch_at
from secateurs.measure import accuracy, cross_entropy

__all__ = ["SETTINGS", "Setting", "record", "train"]

TESTED, AT_ONCE = 5_000, 250


@dataclass(frozen=True)
class Setting:
    """A task at the size of these experiments: SGD with momentum 0.9, the rate falls from ``lr`` to zero by a half cosine."""

    build: Callable[[], nn.Module]
    data: Callable[[], dict[str, Pictures]]
    steps: int
    batch: int
    lr: float
    exclude: tuple[str, ...] = ()

    def model(self, seed: int) -> nn.Module:
        """With the initial weights of ``seed``."""
        torch.manual_seed(seed)
        return self.build()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """A new one."""
        return torch.optim.SGD(model.parameters(), self.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def batches(self, split: str, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``most`` examples of a split, in order."""
        pictures = _splits(self.data)[split]
        for at in range(0, min(most, len(pictures)), AT_ONCE):
            yield pictures.batch(torch.arange(at, min(at + AT_ONCE, len(pictures))))

    def error(self, model: nn.Module) -> float:
        """Share of the first test images that is classified wrongly."""
        return 1 - accuracy(model, self.batches("test", TESTED))

    def validation_loss(self, model: nn.Module) -> float:
        """Mean cross-entropy on the first 2,000 validation images."""
        return cross_entropy(model, self.batches("validation", 2_000))


SETTINGS = {
    "resnet8": Setting(lambda: cifar.resnet(8, 8), cifar.data, 400, 32, 0.1, ("linear",)),
    "lenet": Setting(mnist.lenet300, lambda: mnist.data(5_000, 2_000), 600, 60, 0.05),
}


def train(setting: Setting, model: nn.Module, optimizer: torch.optim.Optimizer, first: int, order: int) -> None:
    """Steps ``first`` to the last; the batches are those of the data order ``order``, a pure function of the step."""
    pictures = _splits(setting.data)["train"]
    model.train()
    for step in range(first, setting.steps):
        for group in optimizer.param_groups:
            group["lr"] = setting.lr * 0.5 * (1 + math.cos(math.pi * step / setting.steps))
        inputs, labels = pictures.batch(batch_at(len(pictures), setting.batch, order, step))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def record(out: Path, trials: Iterable[dict[str, Any]], run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Append the row of every trial to ``out/results.jsonl``, without those that are there."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.jsonl"
    done = {json.loads(line)["run"] for line in path.read_text().splitlines()} if path.is_file() else set()
    for trial in trials:
        name = hashlib.sha256(json.dumps(trial, sort_keys=True).encode()).hexdigest()[:12]
        if name in done:
            continue
        row = {"run": name, **trial, **run(trial)}
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(row, flush=True)


@cache
def _splits(data: Callable[[], dict[str, Pictures]]) -> dict[str, Pictures]:
    return data()
