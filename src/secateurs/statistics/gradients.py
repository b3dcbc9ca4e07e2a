"""Gradients of the loss over calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput

__all__ = ["mean_gradients"]


def mean_gradients(
    model: nn.Module, parameters: Mapping[str, Tensor], batches: Iterable[Any], loss: Callable[[nn.Module, Any], Tensor]
) -> dict[str, Tensor]:
    """The mean over ``batches`` of d loss(model, batch) / d parameter, by name.

    Nothing of the model changes: gradients it holds, which parameters want one and the training mode stay as they were.

    Raises:
        BadInput: no batch was given, or the loss does not depend on one of the parameters.
    """
    wanted = {name: p.requires_grad for name, p in parameters.items()}
    sums: dict[str, Tensor] = {}
    seen = 0
    try:
        for p in parameters.values():
            p.requires_grad_(True)
        for batch in batches:
            found = torch.autograd.grad(loss(model, batch), list(parameters.values()), allow_unused=True)
            for name, g in zip(parameters, found, strict=True):
                if g is None:
                    raise BadInput(f"the loss does not depend on {name!r}, so it has no gradient; exclude it, or give batches that use it")
                sums[name] = g.detach() + sums[name] if name in sums else g.detach()
            seen += 1
    finally:
        for name, p in parameters.items():
            p.requires_grad_(wanted[name])
    if not seen:
        raise BadInput("calibration gave no batch; pass at least one, for example a list of (inputs, targets)")
    return {name: total / seen for name, total in sums.items()}
