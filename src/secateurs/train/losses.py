"""What a calibration batch's loss is where the user gives none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.measure.mode import device_of, to_device

__all__ = ["Loss", "default_loss", "tempered"]

Loss = Callable[[nn.Module, Any], Tensor]

_IGNORED = -100  # PyTorch's own mark for a target that does not count


def default_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss of a batch, a mean over its targets, by what the batch is.

    A mapping with ``labels`` and ``(inputs, labels)`` have theirs: the model's own ``.loss``, or cross-entropy. A mapping of
    ``input_ids`` without labels, and a tensor of ids, are text that predicts itself: the labels are the ids, padding left out,
    which a causal model shifts.

    Raises:
        BadInput: there are no labels, and the inputs cannot be their own.
    """
    batch = to_device(dict(batch) if isinstance(batch, Mapping) else batch, device_of(model))
    if isinstance(batch, Mapping):
        return _own(model(**_labelled(model, batch)))
    if isinstance(batch, Tensor):
        return _own(model(**_labelled(model, {"input_ids": batch})))
    inputs, labels = batch
    return torch.nn.functional.cross_entropy(model(inputs), labels)


def tempered(temperature: float) -> Loss:
    """Cross-entropy of ``(inputs, labels)`` batches with the logits divided by ``temperature``, as GraSP scores (T = 200).

    Raises:
        BadInput: a temperature that is not above 0.
    """
    if not 0 < temperature < math.inf:
        raise BadInput(f"temperature={temperature!r}: logits are divided by a number above 0; 200 is GraSP's")

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = to_device(batch, device_of(model))
        return torch.nn.functional.cross_entropy(model(inputs) / temperature, labels)

    return loss


def _labelled(model: nn.Module, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    if "labels" in batch:
        return batch
    ids = batch.get("input_ids")
    config = getattr(model, "config", None)
    if not isinstance(ids, Tensor) or ids.is_floating_point() or config is None or getattr(config, "is_encoder_decoder", False):
        raise BadInput("the calibration batches have no labels, and their inputs are no text that predicts itself: give "
                       "(inputs, labels) pairs, mappings with 'labels', or loss=")  # fmt: skip
    mask = batch.get("attention_mask")
    return {**batch, "labels": ids if mask is None else ids.masked_fill(mask == 0, _IGNORED)}


def _own(output: Any) -> Tensor:
    loss = getattr(output, "loss", None)
    if loss is None:
        raise BadInput(f"the model returned a {type(output).__name__} without a loss for labelled batches: give loss=")
    found: Tensor = loss
    return found
