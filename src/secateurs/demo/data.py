"""Scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels, in three fixed parts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.extras import require

__all__ = ["Digits", "Part", "batches", "digits"]


@dataclass(frozen=True)
class Part:
    """Images ``[n, 1, 8, 8]``, float32 in [0, 1], and their classes ``[n]``, 0 to 9."""

    images: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Digits:
    """``train`` fits the weights, ``validation`` makes choices, ``test`` is only reported."""

    train: Part
    validation: Part
    test: Part


@functools.cache
def digits() -> Digits:
    """897, 360 and 540 images, every class with the same share in each part; the same split every time."""
    images, classes = require("sklearn.datasets", "demo").load_digits(return_X_y=True)
    split = require("sklearn.model_selection", "demo").train_test_split
    rest, test = split(range(len(classes)), test_size=540, stratify=classes, random_state=0)
    train, validation = split(rest, test_size=360, stratify=classes[rest], random_state=0)
    x = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(classes, dtype=torch.int64)
    return Digits(*(Part(x[indices], y[indices]) for indices in (train, validation, test)))


def batches(part: Part, size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``steps`` full batches, epoch after epoch, in an order that depends on ``seed`` alone; an epoch's rest is dropped."""
    generator = torch.Generator().manual_seed(seed)
    taken = 0
    while taken < steps:
        order = torch.randperm(len(part.classes), generator=generator)
        for chosen in order[: len(order) // size * size].split(size)[: steps - taken]:
            yield part.images[chosen], part.classes[chosen]
            taken += 1
