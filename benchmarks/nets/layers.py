"""What several of the networks are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Classifier", "ConvNorm", "Gate", "Sum"]


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, activation (none: no activation); padded so that stride 1 keeps the size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int = 1, groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU,
    ):  # fmt: skip
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2)
        conv = nn.Conv2d(inputs, outputs, sides, stride, padding, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), *([act()] if act else []))


class Sum(nn.Module):
    """``act(branch(x) + shortcut(x))``."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None):
        super().__init__()
        self.branch, self.shortcut, self.act = branch, shortcut or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branch(x) + self.shortcut(x))


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): every channel times a number found from all of them."""

    def __init__(self, channels: int, inner: int, gate: Callable[[], nn.Module] = nn.Sigmoid):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Classifier(nn.Module):
    """A body of convolutions, the mean over the pixels, a linear layer."""

    def __init__(self, body: nn.Module, channels: int, classes: int = 10):
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))
