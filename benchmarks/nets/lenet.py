"""Networks for handwritten digits: LeNet-300-100 (LeCun et al. 1998) and the small LeNet-5 whose filters can be enumerated."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LeNet5Mini", "LeNet300"]


class LeNet300(nn.Module):
    """``[N, 1, 28, 28]`` to ``[N, 10]`` through hidden layers of 300 and 100, both times ``width`` and rounded."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        first, second = max(1, round(300 * width)), max(1, round(100 * width))
        self.fc1 = nn.Linear(784, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class LeNet5Mini(nn.Module):
    """``[N, 1, 28, 28]`` to ``[N, 10]``: three 5 x 5 convolutions of ``filters`` each, then ``filters``-``filters``-10.

    The network of "Is Oracle Pruning the True Oracle?" (2024), where ``filters`` is 10. The first convolution pads by two
    pixels, so that the third sees exactly 5 x 5.
    """

    def __init__(self, filters: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, filters, 5, padding=2)
        self.conv2 = nn.Conv2d(filters, filters, 5)
        self.conv3 = nn.Conv2d(filters, filters, 5)
        self.fc1 = nn.Linear(filters, filters)
        self.fc2 = nn.Linear(filters, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))
