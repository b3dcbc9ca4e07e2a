"""Measure the running statistics of batch norms anew, for a network whose layers have changed since they were taken."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from secateurs.errors import BadInput
from secateurs.measure.mode import evaluating
from secateurs.train.walk.replay import Forward, default_forward

__all__ = ["reestimate", "reestimated"]

_SOURCES = ("data", "noise")


def reestimate(
    model: nn.Module, batches: Iterable[Any], *, count: int | None = None, source: Literal["data", "noise"] = "data",
    forward: Forward = default_forward,
) -> int:  # fmt: skip
    """Replace every batch norm's running mean and variance by their averages over ``batches``; how many batches were used.

    The statistics are reset and every batch counts alike (the cumulative average that ``momentum=None`` is in PyTorch), so they
    depend on the batches alone. Only these norms are in training mode: dropout is off. Weights, momenta and every module's own
    training flag stay. Instance norms that track statistics count too. A model without any is left alone.

    Args:
        model: changed in place, in its buffers only.
        batches: what the model is called with: tensors, ``(inputs, labels)``, or mappings of named arguments.
        count: take exactly so many; by default all.
        source: ``"noise"`` where the batches are random numbers. Their statistics are further from those of data than the old
            ones, so nothing is done.
        forward: ``(model, batch) -> output``, where batches are called otherwise.

    Raises:
        BadInput: ``count`` is below 1, there are fewer batches, or a source is unknown. The old statistics are back then, as
            after any error of the model's.
    """
    if source not in _SOURCES:
        raise BadInput(f"source={source!r}; it is one of {', '.join(map(repr, _SOURCES))}")
    if count is not None and count < 1:
        raise BadInput(f"count={count!r}: take at least one batch")
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.running_mean is not None]
    if not norms or source == "noise":
        return 0
    with evaluating(model), _measuring(norms):
        used = 0
        for batch in itertools.islice(batches, count):
            for norm in norms:  # a momentum of None is cumulative in batch norms, but no momentum at all in instance norms
                norm.momentum = 1 / (used + 1) if isinstance(norm, _InstanceNorm) else None
            forward(model, batch)
            used += 1
        if used < (count or 1):
            raise BadInput(f"the statistics were to be taken from {count or 'at least 1'} batches, but there were only {used}")
    return used


def reestimated(model: nn.Module, batches: Iterable[Any], forward: Forward = default_forward) -> nn.Module:
    """A copy of ``model`` with the statistics of ``batches``; the model itself where no norm keeps any."""
    if not any(isinstance(module, _NormBase) and module.running_mean is not None for module in model.modules()):
        return model
    twin = copy.deepcopy(model)
    reestimate(twin, batches, forward=forward)
    return twin


@contextmanager
def _measuring(norms: list[_NormBase]) -> Iterator[None]:
    """The norms reset and averaging inside, their momenta as before afterwards; after an error their statistics too."""
    before = [(norm, norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    try:
        yield
    except BaseException:
        _restore(before)
        raise
    finally:
        for norm, momentum, _ in before:
            norm.momentum = momentum


@torch.no_grad()
def _restore(before: Iterable[tuple[_NormBase, Any, dict[str, torch.Tensor]]]) -> None:
    for norm, _, buffers in before:
        for name, value in buffers.items():
            norm.get_buffer(name).copy_(value)
