"""Networks the tests of the methods share."""

from __future__ import annotations

import torch
from torch import nn

FEATURES, CLASSES = 12, 4


def tiny(dtype: torch.dtype = torch.float32) -> nn.Module:
    """144 + 192 + 64 = 400 selected weights in three layers."""
    torch.manual_seed(0)
    layers = [nn.Linear(FEATURES, 12), nn.Tanh(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, CLASSES)]
    return nn.Sequential(*layers).to(dtype)


def batches(count: int, dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Labels that a linear rule gives, so that there is something to learn."""
    generator = torch.Generator().manual_seed(1)
    rule = torch.randn(FEATURES, CLASSES, generator=generator)
    inputs = [torch.randn(8, FEATURES, generator=generator) for _ in range(count)]
    return [(x.to(dtype), (x @ rule).argmax(1)) for x in inputs]


class Separable(nn.Sequential):
    """A depthwise 3 x 3 and a pointwise convolution, each with batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip


def mobilenet() -> nn.Module:
    """MobileNetV1 at width 1 for 1000 classes (Howard et al. 2017, table 1)."""
    plan = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), *[(512, 512, 1)] * 5]
    plan += [(512, 1024, 2), (1024, 1024, 1)]
    stem = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(
        *stem, *(Separable(*row) for row in plan), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)
    )
