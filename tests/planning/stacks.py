"""Small networks of repeated blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Step(nn.Module):
    """Adds a linear layer's output to what it is given, and knows its place."""

    def __init__(self, place: int, width: int = 4) -> None:
        super().__init__()
        self.layer_idx = place
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * self.linear(x).tanh()


class Stack(nn.Module):
    """Five steps; the sizes of their weights grow in the order 3, 0, 4, 1, 2."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.steps = nn.ModuleList(Step(place) for place in range(5))
        for place, size in enumerate((0.2, 0.4, 0.5, 0.1, 0.3)):
            nn.init.constant_(self.steps[place].linear.weight, size)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for step in self.steps:
            x = step(x, scale=0.5)
        return self.head(x)


class Stage(nn.Module):
    """Convolutions around a shortcut; the first of a list halves the image and cannot be left out."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, 1 + (before != after), 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + x if y.shape == x.shape else y


class Pyramid(nn.Module):
    """Two lists, of four blocks and three; the first block of the second must stay."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(*(Stage(3, 3) for _ in range(4)))
        self.second = nn.Sequential(Stage(3, 6), Stage(6, 6), Stage(6, 6))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)).mean((2, 3))


VECTORS = torch.linspace(-1, 1, 15).view(5, 3)
PICTURES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
