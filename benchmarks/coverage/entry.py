"""What the list is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Entry", "Example", "called", "shaken"]

Example = tuple[Tensor, ...] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """One architecture: ``build()`` gives a small random model in evaluation mode, ``example(model)`` inputs for it.

    ``structures`` are the kinds of groups to prune; empty: the kind that holds most of the parameters.
    """

    name: str
    kind: str
    family: str
    build: Callable[[], nn.Module]
    example: Callable[[nn.Module], Example]
    structures: tuple[str, ...] = ()


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model`` in evaluation mode with biases, affines and running statistics that are not all zero or one.

    Fresh models have zero biases, unit scales and untouched statistics, and would hide that one of them was forgotten.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() <= 1 and parameter.is_floating_point():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator).to(buffer.dtype))
        elif name.endswith("running_var"):
            buffer.mul_(0.5 + torch.rand(buffer.shape, generator=generator).to(buffer.dtype))
    return model.eval()


def called(model: nn.Module, example: Example) -> Any:
    """``model`` on ``example``: a mapping is named arguments."""
    return model(**example) if isinstance(example, Mapping) else model(*example)
