"""Calibration passes in a narrower dtype than the model's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateurs.errors import BadInput, near
from secateurs.measure.mode import device_of
from secateurs.train.walk.replay import Forward

__all__ = ["COMPUTE", "in_precision"]

COMPUTE = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def in_precision(forward: Forward, compute: str | None) -> Forward:
    """``forward`` with its matrix products, convolutions and attention in the dtype ``compute`` (PyTorch's autocast).

    Weights, what blocks hand on where the model adds to it (the residual stream) and sums of statistics keep their dtype.

    Raises:
        BadInput: another word than ``"bfloat16"`` or ``"float16"``.
    """
    if compute is None:
        return forward
    if compute not in COMPUTE:
        raise BadInput(f"compute={compute!r}: use {' or '.join(map(repr, COMPUTE))}, or nothing{near(compute, COMPUTE)}")

    def narrowed(model: nn.Module, batch: Any) -> Any:
        device = device_of(model).type
        with torch.autocast("cpu" if device == "meta" else device, COMPUTE[compute]):
            return forward(model, batch)

    return narrowed
