"""What a model that gives logits is worth: accuracy, loss, perplexity, calibration. Convention and units stand with each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.errors import BadInput
from secateurs.measure.mode import device_of, evaluating, to_device

__all__ = ["BINS", "IGNORED", "Predict", "accuracy", "calibration_error", "cross_entropy", "perplexity"]

Predict = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
IGNORED = -100  # PyTorch's own mark for a target that does not count
BINS = 15  # of the calibration error, as Guo et al. have it


def accuracy(model: nn.Module, batches: Iterable[Any], predict: Predict | None = None, top: int = 1) -> float:
    """Share of targets whose class is among the ``top`` highest logits, in [0, 1], over all batches together.

    Of equal logits the class with the lower number is ranked first, as ``argmax`` does, so constant logits earn no more than
    chance; a target whose logit is NaN, or that stands behind a NaN, is never right for it.

    Args:
        model: run in evaluation mode without gradients, and left as it was.
        batches: pairs ``(inputs, targets)``, or mappings with ``labels`` for a Hugging Face model. Logits are
            ``[..., classes]`` and targets ``[...]``; targets of -100 do not count.
        predict: ``(model, batch) -> (logits, targets)``, for batches of any other form.
        top: 1 for top-1, 5 for top-5.

    Raises:
        BadInput: there is nothing to count, logits and targets do not fit, or there are not more than ``top`` classes.
    """
    right = total = 0
    for logits, targets in _counted(model, batches, predict or _plain):
        right += int((_rank(logits, targets, top) < top).sum())
        total += len(targets)
    if not total:
        raise BadInput("no accuracy: the batches hold no targets (is the iterator already used up?)")
    return right / total


def cross_entropy(model: nn.Module, batches: Iterable[Any], predict: Predict | None = None) -> float:
    """Mean negative log-likelihood of the targets in nats (natural logarithm), over all targets of all batches.

    Every target weighs the same, however targets fall into batches. For pairs ``(inputs, targets)`` the targets are aligned
    with the logits: the caller has shifted them. For mappings with ``labels`` (a Hugging Face causal model) position i
    predicts label i + 1, as those models' own loss does. Arguments are as for :func:`accuracy`.

    Raises:
        BadInput: there is nothing to count, or logits and targets do not fit.
    """
    total, count = _likelihood(model, batches, predict or _causal)
    if not count:
        raise BadInput("no cross-entropy: the batches hold no targets (is the iterator already used up?)")
    return total / count


def perplexity(model: nn.Module, batches: Iterable[Any], predict: Predict | None = None) -> float:
    """exp of :func:`cross_entropy`, the mean over all target tokens of all batches; infinite where too large for a float.

    Raises:
        BadInput: there is nothing to count, or logits and targets do not fit.
    """
    total, tokens = _likelihood(model, batches, predict or _causal)
    if not tokens:
        raise BadInput("no perplexity: the batches hold no target tokens (is the iterator already used up?)")
    mean = total / tokens
    return math.exp(mean) if not mean > 700 else math.inf


def calibration_error(model: nn.Module, batches: Iterable[Any], predict: Predict | None = None, bins: int = BINS) -> float:
    """Expected calibration error, in [0, 1]: how far the confidence of the predictions is from their accuracy.

    ``sum_m |B_m| / n * |acc(B_m) - conf(B_m)|`` over ``bins`` bins of equal width (Guo et al. 2017, On Calibration of Modern
    Neural Networks, equation 3). A prediction's confidence is the highest softmax probability, and bin m of M holds the
    confidences in ((m - 1) / M, m / M]. Arguments are as for :func:`accuracy`.

    Raises:
        BadInput: there is nothing to count, logits and targets do not fit, or ``bins`` is no positive whole number.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise BadInput(f"bins={bins!r}: give a whole number of bins, at least 1")
    gap, total = torch.zeros(bins, dtype=torch.float64), 0  # of each bin: sum of (right - confidence)
    for logits, targets in _counted(model, batches, predict or _plain):
        confidence, predicted = logits.double().softmax(-1).max(-1)
        place = (confidence * bins).ceil().long().clamp(1, bins) - 1
        gap.index_add_(0, place.cpu(), ((predicted == targets).double() - confidence).cpu())
        total += len(targets)
    if not total:
        raise BadInput("no calibration error: the batches hold no targets (is the iterator already used up?)")
    return float(gap.abs().sum()) / total


def _rank(logits: Tensor, targets: Tensor, top: int) -> Tensor:
    """How many classes stand before each target: ``[n, classes]`` and ``[n]`` give ``[n]``."""
    classes = logits.shape[-1]
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top < max(classes, 2):
        raise BadInput(f"top={top!r} of {classes} classes: give a whole number from 1 to one less than the classes")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise BadInput(f"targets lie between {int(targets.min())} and {int(targets.max())}, the logits have {classes} classes, "
                       f"0 to {classes - 1}")  # fmt: skip
    own = logits.gather(-1, targets[:, None])
    first = torch.arange(classes, device=logits.device) < targets[:, None]
    return (~(logits <= own) | (first & (logits == own))).sum(-1)


def _counted(model: nn.Module, batches: Iterable[Any], predict: Predict) -> Iterable[tuple[Tensor, Tensor]]:
    """Logits ``[n, classes]`` and targets ``[n]`` of every batch, without the targets that do not count."""
    for logits, targets in _predictions(model, batches, predict):
        counted = targets != IGNORED
        yield logits[counted], targets[counted].long()


def _likelihood(model: nn.Module, batches: Iterable[Any], predict: Predict) -> tuple[float, int]:
    """The sum of the negative log-likelihoods of all targets that count, and their number."""
    total, count = 0.0, 0
    for logits, targets in _predictions(model, batches, predict):
        flat = logits.reshape(-1, logits.shape[-1]).float()
        total += float(F.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED, reduction="sum"))
        count += int((targets != IGNORED).sum())
    return total, count


def _predictions(model: nn.Module, batches: Iterable[Any], predict: Predict) -> Iterable[tuple[Tensor, Tensor]]:
    device = device_of(model)
    with evaluating(model):
        for batch in batches:
            logits, targets = predict(model, to_device(batch, device))
            if logits.shape[:-1] != targets.shape:
                raise BadInput(f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}: "
                               "logits have one more dimension, the classes, in the last place")  # fmt: skip
            yield logits, targets


def _plain(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Mapping):
        return _logits(model(**batch)), batch["labels"]
    inputs, targets = batch
    return _logits(model(inputs)), targets


def _causal(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    logits, targets = _plain(model, batch)
    return (logits[:, :-1], targets[:, 1:]) if isinstance(batch, Mapping) else (logits, targets)


def _logits(output: Any) -> Tensor:
    """The logits of a model's output: the tensor itself, ``.logits``, or the first of a tuple (logits, state)."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    raise BadInput(f"the model returned {type(output).__name__}: pass predict=, which turns a batch into (logits, targets)")
