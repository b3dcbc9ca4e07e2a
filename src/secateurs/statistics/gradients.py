"""Gradients of the loss over calibration batches, and the Hessian times them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput

__all__ = ["hessian_gradients", "mean_gradients", "undisturbed"]


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
    sums: dict[str, Tensor] = {}
    seen = 0
    with undisturbed(model, parameters, seed):
        for batch in batches:
            for name, g in _gradients(loss(model, batch), parameters):
                sums[name] = g + sums[name] if name in sums else g
            seen += 1
    if not seen:
        raise BadInput("calibration gave no batch; pass at least one, for example a list of (inputs, targets)")
    return {name: total / seen for name, total in sums.items()}


def hessian_gradients(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    batches: Sequence[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    seed: int = 0,
) -> dict[str, Tensor]:
    """``H g`` by name: the Hessian of the mean loss over ``batches``, to all ``parameters`` together, times its gradient.

    Exact, by differentiating ``g . g'`` of every batch, where g is the mean gradient and held fixed: two forward and three
    backward passes a batch. What :func:`mean_gradients` leaves as it was stays so here too.

    Raises:
        BadInput: no batch was given, or the loss does not depend on one of the parameters.
    """
    mean = mean_gradients(model, parameters, batches, loss, seed)
    sums = {name: torch.zeros_like(g) for name, g in mean.items()}
    with undisturbed(model, parameters, seed):
        for batch in batches:
            slopes = _gradients(loss(model, batch), parameters, create_graph=True)
            along = torch.stack([(mean[name] * g).sum() for name, g in slopes]).sum()
            if along.requires_grad:  # a linear loss has no curvature
                found = torch.autograd.grad(along, list(parameters.values()), allow_unused=True)
                for name, g in zip(parameters, found, strict=True):
                    if g is not None:
                        sums[name] += g
    return {name: total / len(batches) for name, total in sums.items()}


@contextmanager
def undisturbed(model: nn.Module, parameters: Mapping[str, Tensor], seed: int) -> Iterator[None]:
    """Inside, all ``parameters`` want gradients and random numbers follow ``seed``; afterwards the model is as it was."""
    wanted = {name: p.requires_grad for name, p in parameters.items()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index for p in parameters.values() if p.device.type == "cuda"})
    try:
        for p in parameters.values():
            p.requires_grad_(True)
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(seed)
            yield
    finally:
        for name, p in parameters.items():
            p.requires_grad_(wanted[name])
        for buffer, before in buffers:
            buffer.copy_(before)


def _gradients(loss: Tensor, parameters: Mapping[str, Tensor], create_graph: bool = False) -> Iterator[tuple[str, Tensor]]:
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, create_graph=create_graph)
    for name, gradient in zip(parameters, found, strict=True):
        if gradient is None:
            raise BadInput(f"the loss does not depend on {name!r}, so it has no gradient; exclude it, or give "
                           "batches that use it")  # fmt: skip
        yield name, gradient if create_graph else gradient.detach()
