"""Scikit-learn's 8 x 8 digits and a multilayer perceptron: small enough for a first look and for tests."""

from __future__ import annotations

from torch import Tensor, nn

from secateurs.demo.data import Part, digits

__all__ = ["data", "perceptron"]


def perceptron(width: float = 128) -> nn.Sequential:
    """64 pixels, two hidden layers of ``width``, 10 classes."""
    hidden = int(width)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                         nn.Linear(hidden, 10))  # fmt: skip


def data() -> dict[str, tuple[Tensor, Tensor]]:
    """897, 360 and 540 images ``[n, 1, 8, 8]`` and their classes, every class with the same share in each split."""
    found = digits()
    return {"train": _tensors(found.train), "validation": _tensors(found.validation), "test": _tensors(found.test)}


def _tensors(part: Part) -> tuple[Tensor, Tensor]:
    return part.images, part.classes
