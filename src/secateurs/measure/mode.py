"""Running a model without leaving a trace: evaluation mode and no gradients inside, everything as it was outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["computing_with", "device_of", "evaluating", "to_device"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module's own training flag is what it was.

    An exported program stays in the mode it was exported in: it has no other.
    """
    flags = [(module, module.training) for module in model.modules()]
    with suppress(NotImplementedError):
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Torch computes with so many threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer that has values lies; the CPU for a model without any."""
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors if not tensor.is_meta), torch.device("cpu"))


def to_device(value: Any, device: torch.device) -> Any:
    """``value`` with every tensor inside its tuples, lists and mappings on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        moved = [to_device(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    return value
