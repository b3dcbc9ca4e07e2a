"""Handwritten digits of 28 x 28 pixels: 55,000 / 5,000 / 10,000 images, without augmentation."""

from __future__ import annotations

from benchmarks.nets.lenet import LeNet5Mini, LeNet300
from benchmarks.tasks.pictures import Pictures, pictures

__all__ = ["data", "lenet5_mini", "lenet300"]

HELD_OUT = 5_000
MEAN, STD = (0.1307,), (0.3081,)


def lenet300(width: float = 1.0) -> LeNet300:
    """LeNet-300-100; ``width`` multiplies both hidden sizes."""
    return LeNet300(width)


def lenet5_mini(filters: int = 10) -> LeNet5Mini:
    """The small convolutional network of the oracle study."""
    return LeNet5Mini(filters)


def data(examples: int | None = None, held_out: int = HELD_OUT) -> dict[str, Pictures]:
    """The splits, with the first ``examples`` training images (all if None); validation are the last ``held_out`` of them."""
    splits = pictures("mnist", held_out, MEAN, STD)
    train = splits["train"]
    return {**splits, "train": Pictures(train.pixels[:examples], train.labels[:examples], MEAN, STD)}
