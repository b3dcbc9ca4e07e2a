"""The network of the demonstration: three convolutions and a linear layer, with a width."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from secateurs.errors import BadInput

__all__ = ["FULL", "build", "channels"]

FULL = 64
"""Channels of the last convolution of the full network."""


def channels(width: int) -> tuple[int, int, int]:
    """Channels of the three convolutions: a quarter of ``width``, a half and ``width``, rounded, at least one each."""
    if not 1 <= width <= FULL:
        raise BadInput(f"width={width}: give the channels of the last convolution, 1 to {FULL}")
    return max(1, (width + 2) // 4), max(1, (width + 1) // 2), width


def build(width: int = FULL) -> nn.Sequential:
    """A fresh network for images ``[batch, 1, 8, 8]`` with logits ``[batch, 10]``; ``width`` as in :func:`channels`."""
    first, second, third = channels(width)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, first, 3, padding=1, bias=False), norm1=nn.BatchNorm2d(first), relu1=nn.ReLU(),
            conv2=nn.Conv2d(first, second, 3, padding=1, bias=False), norm2=nn.BatchNorm2d(second), relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv3=nn.Conv2d(second, third, 3, padding=1, bias=False), norm3=nn.BatchNorm2d(third), relu3=nn.ReLU(),
            mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), classify=nn.Linear(third, 10),
        )
    )  # fmt: skip
