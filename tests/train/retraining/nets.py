"""Small pruned networks, and a few steps of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import secateurs as sc


class Net(nn.Module):
    """Two pruned layers with biases, a norm, and a head that stays dense."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))))


def pruned(dtype: torch.dtype = torch.float32, sparsity: float = 0.5) -> Any:
    """48 + 64 weights in two layers, of which half are zero; 48 + 8, 16, 64 + 8, 24 + 3 = 171 parameters in all."""
    torch.manual_seed(0)
    return sc.prune(Net().to(dtype), "magnitude", sparsity=sparsity, exclude=["head"])


def batches(count: int, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels that a linear rule gives."""
    generator = torch.Generator().manual_seed(1)
    rule = torch.randn(6, 3, generator=generator)
    inputs = [torch.randn(16, 6, generator=generator) for _ in range(count)]
    return [(x.to(dtype), (x @ rule).argmax(1)) for x in inputs]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, given: list[tuple[Tensor, Tensor]]) -> None:
    """A step on every batch."""
    for x, y in given:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).float(), y).backward()
        optimizer.step()
