"""What both sides share: the trained network, its data, and how a pruned copy is judged."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.circumstances import circumstances
from benchmarks.nets.resnet import ResNet
from benchmarks.tasks import cifar
from benchmarks.tasks.pictures import Pictures
from benchmarks.tasks.reading import root
from secateurs.comparing.spec import SCHEMA
from secateurs.measure import accuracy, compare_latency, multiply_adds
from secateurs.train.reestimate import reestimate

__all__ = ["EXAMPLE", "Cut", "Judge", "calibration", "dense"]

EXAMPLE = (1, 3, 32, 32)
CALIBRATION, BATCH = 1024, 128  # images for gradients, second moments and statistics; images of a batch
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4  # of the epoch that follows

Prune = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Cut:
    """What a side gives back.

    Attributes:
        model: the pruned network.
        seconds: of processor time, for planning and cutting once the network was traced.
        more: what only this side can say, for the row.
    """

    model: nn.Module
    seconds: float
    more: dict[str, float] = field(default_factory=dict)


def dense() -> nn.Module:
    """The trained network in evaluation mode."""
    from safetensors.torch import load_file

    model = ResNet(56)
    model.load_state_dict(load_file(root() / "models" / "cifar10-resnet56.safetensors"))
    return model.eval()


def calibration(images: int = CALIBRATION) -> list[tuple[Tensor, Tensor]]:
    """Training images drawn with seed 0, as they are, in batches."""
    train = cifar.data()["train"]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:images]
    return [train.batch(part) for part in order.split(BATCH)]


class Judge:
    """Measures pruned copies of the trained network: accuracies on the test images, multiply-adds, parameters, time.

    ``test`` and ``train`` are how many images of each set are used, drawn with seed 0; None takes all.
    """

    def __init__(self, epochs: int = 1, repeats: int = 20, test: int | None = None, train: int | None = None):
        self.epochs, self.repeats = epochs, repeats
        self.data, self.dense = cifar.data(), dense()
        self.drawn = {part: _drawn(len(self.data[part]), count) for part, count in (("test", test), ("train", train))}
        self.images = calibration()
        self.multiply_adds = multiply_adds(self.dense, torch.randn(EXAMPLE)).dense

    def row(self, run: str, tool: str, cut: Cut) -> dict[str, Any]:
        """Everything that is known of ``cut``, as a row of results."""
        left = multiply_adds(cut.model, torch.randn(EXAMPLE)).dense
        sizes = [sum(p.numel() for p in model.parameters()) for model in (self.dense, cut.model)]
        row = {"schema": SCHEMA, "run": run, "status": "done", "tool": tool, "flops": left / self.multiply_adds,
               "multiply_adds": left, "parameters": sizes[1], "dense_parameters": sizes[0], "seconds": cut.seconds}  # fmt: skip
        row |= cut.more | self.times(cut.model) | {"straight": self.accuracy(cut.model)}
        again = copy.deepcopy(cut.model)
        reestimate(again, self.images)
        row["reestimated"] = self.accuracy(again)
        if self.epochs:
            began = time.perf_counter()
            for _ in range(self.epochs):
                self.train(again)
            row |= {"epochs": self.epochs, "trained": self.accuracy(again), "training_seconds": time.perf_counter() - began,
                    "train_images": len(self.drawn["train"])}  # fmt: skip
        return {**row, "test_images": len(self.drawn["test"]), "calibration": CALIBRATION, **circumstances()}

    def accuracy(self, model: nn.Module) -> float:
        """Top-1 on the test images, in evaluation mode."""
        return accuracy(model, _batches(self.data["test"], self.drawn["test"], 500))

    def times(self, model: nn.Module) -> dict[str, float]:
        """Seconds at batch 64, in turns with the dense network, and the quotient of the medians."""
        x = torch.randn(64, *EXAMPLE[1:])
        with torch.no_grad():
            model.eval()
            found = compare_latency({"dense": lambda: self.dense(x), "pruned": lambda: model(x)}, repeats=self.repeats)
        before, after = found["dense"].median_s, found["pruned"].median_s
        return {"dense_s": before, "pruned_s": after, "latency": after / before}

    def train(self, model: nn.Module) -> None:
        """SGD at a constant rate, once through the training images, flipped and shifted, in an order of seed 0."""
        torch.manual_seed(0)
        train = self.data["train"]
        optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
        model.train()
        for batch in _batches(train, self.drawn["train"], BATCH):
            x, labels = cifar.augmented(batch)
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
        model.eval()


def _drawn(images: int, count: int | None) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(0))[:count]


def _batches(part: Pictures, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return (part.batch(index) for index in order.split(size))
