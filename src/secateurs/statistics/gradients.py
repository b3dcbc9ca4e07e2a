"""Gradients of the loss over calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput

__all__ = ["mean_gradients"]


def mean_gradients(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    seed: int = 0,
) -> dict[str, Tensor]:
    """The mean over ``batches`` of d loss(model, batch) / d parameter, by name.

    Nothing of the model changes: the gradients it holds, which parameters want one, its buffers (running statistics) and the
    training mode stay as they were. Random numbers (dropout in training mode, a shuffled loader) follow ``seed``, and torch's
    own generators are as before.

    Raises:
        BadInput: no batch was given, or the loss does not depend on one of the parameters.
    """
    wanted = {name: p.requires_grad for name, p in parameters.items()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index for p in parameters.values() if p.device.type == "cuda"})
    sums: dict[str, Tensor] = {}
    seen = 0
    try:
        for p in parameters.values():
            p.requires_grad_(True)
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(seed)
            for batch in batches:
                for name, g in _gradients(loss(model, batch), parameters):
                    sums[name] = g + sums[name] if name in sums else g
                seen += 1
    finally:
        for name, p in parameters.items():
            p.requires_grad_(wanted[name])
        for buffer, before in buffers:
            buffer.copy_(before)
    if not seen:
        raise BadInput("calibration gave no batch; pass at least one, for example a list of (inputs, targets)")
    return {name: total / seen for name, total in sums.items()}


def _gradients(loss: Tensor, parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, found, strict=True):
        if gradient is None:
            raise BadInput(f"the loss does not depend on {name!r}, so it has no gradient; exclude it, or give "
                           "batches that use it")  # fmt: skip
        yield name, gradient.detach()
