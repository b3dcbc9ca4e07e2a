"""Optimizers and learning rates as a task's settings describe them; rates are pure functions of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from secateurs.comparing.spec import Optimizer
from secateurs.errors import BadInput

__all__ = ["make_optimizer", "rate_at"]


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimizer that ``settings`` describe, over all parameters of ``model`` that want a gradient.

    Raises:
        BadInput: no such optimizer.
    """
    values, lr, decay = [p for p in model.parameters() if p.requires_grad], settings.lr, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(values, lr, settings.momentum, weight_decay=decay, nesterov=settings.nesterov)
    if settings.name == "adam":
        return torch.optim.Adam(values, lr, weight_decay=decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(values, lr, weight_decay=decay)
    raise BadInput(f"optimizer {settings.name!r} is unknown; there are sgd, adam and adamw")


def rate_at(lr: float, settings: Optimizer, step: int, steps: int) -> float:
    """The learning rate of the 0-based ``step`` of ``steps``, the highest being ``lr``.

    A linear warm-up over the share ``warmup`` of the steps; then ``constant``, half a ``cosine`` or a ``linear`` fall to zero
    over what is left, or ``drops``: times ``factor`` at every one of the ``milestones``, shares of all steps.

    Raises:
        BadInput: no such curve.
    """
    warm = max(1, round(settings.warmup * steps)) if settings.warmup else 0
    if step < warm:
        return lr * (step + 1) / warm
    if settings.rate == "constant":
        return lr
    if settings.rate == "linear":
        return lr * (steps - step) / max(1, steps - warm)
    if settings.rate == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    if settings.rate == "drops":
        return lr * settings.factor ** sum(step >= share * steps for share in settings.milestones)
    raise BadInput(f"rate {settings.rate!r} is unknown; there are constant, cosine, linear and drops")
