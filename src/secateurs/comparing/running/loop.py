"""The built-in supervised loop, written on what a task's own training function gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.comparing.running.data import Split
from secateurs.comparing.running.randomness import batch_at
from secateurs.comparing.running.training import Training
from secateurs.errors import BadInput

__all__ = ["cross_entropy", "supervised"]


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Mean cross-entropy of ``batch = (*inputs, labels)``, in float32; of a mapping, the ``loss`` of the model's own answer."""
    if isinstance(batch, Mapping):
        return model(**batch).loss
    *inputs, labels = batch
    return F.cross_entropy(model(*inputs).float(), labels)


def supervised(
    training: Training,
    loss: Callable[[nn.Module, Any], Tensor] = cross_entropy,
    transform: Callable[[Any], Any] | None = None,
) -> None:
    """Take all steps on the batches of ``data["train"]``, epoch after epoch in a fresh order.

    Args:
        training: what to train; with ``autocast``, matrix products are in bfloat16.
        loss: ``(model, batch) -> loss``.
        transform: applied to every batch; may draw from torch's, numpy's and Python's global generators.

    Raises:
        BadInput: the training data is no split, or smaller than a batch.
        NotFinite: the loss is NaN or infinite.
    """
    split = training.data["train"]
    if not isinstance(split, Split):
        raise BadInput(f"the built-in loop trains on a split (tensors, a dataset, or batch(index)); data['train'] is a "
                       f"{type(split).__name__}: give the task its own train:")  # fmt: skip
    optimizer = training.make_optimizer()
    training.start(optimizer)
    for step in training.remaining():
        batch = split.batch(batch_at(len(split), training.batch, training.seed, step))
        if transform is not None:
            batch = transform(batch)
        optimizer.zero_grad()
        with torch.autocast(split.device.type, torch.bfloat16) if training.autocast else nullcontext():
            value = loss(training.model, batch)
        value.backward()
        training.clip()
        optimizer.step()
        training.done(step, value)
