"""Calibration passes in a narrower dtype than the model's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from secateurs.errors import BadInput, near
from secateurs.measure.mode import device_of

__all__ = ["COMPUTE", "computing_in"]

COMPUTE = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def computing_in(compute: str | None, model: nn.Module) -> AbstractContextManager[object]:
    """Inside, ``model`` multiplies matrices, convolves and attends in the dtype ``compute`` (PyTorch's autocast).

    Weights, what blocks hand on where the model adds to it (the residual stream) and sums of statistics keep their dtype.
    Weights must not change inside: each is narrowed once.

    Raises:
        BadInput: another word than ``"bfloat16"`` or ``"float16"``.
    """
    if compute is None:
        return nullcontext()
    if compute not in COMPUTE:
        raise BadInput(f"compute={compute!r}: use {' or '.join(map(repr, COMPUTE))}, or nothing{near(compute, COMPUTE)}")
    return torch.autocast(device_of(model).type, COMPUTE[compute])
