"""What a model is worth: accuracy, perplexity, BLEU. Convention and units stand with each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.measure.mode import device_of, evaluating, to_device

__all__ = ["accuracy", "bleu", "bleu_signature", "perplexity"]

Predict = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
IGNORED = -100  # PyTorch's own mark for a target that does not count


def accuracy(model: nn.Module, batches: Iterable[Any], predict: Predict | None = None) -> float:
    """Share of targets whose class has the highest logit, in [0, 1], over all batches together.

    Args:
        model: run in evaluation mode without gradients, and left as it was.
        batches: pairs ``(inputs, targets)``, or mappings with ``labels`` for a Hugging Face model. Logits are
            ``[..., classes]`` and targets ``[...]``; targets of -100 do not count.
        predict: ``(model, batch) -> (logits, targets)``, for batches of any other form.

    Raises:
        BadInput: there is nothing to count, or logits and targets do not fit.
    """
    right = total = 0
    for logits, targets in _predictions(model, batches, predict or _plain):
        counted = targets != IGNORED
        right += int((logits.argmax(-1)[counted] == targets[counted]).sum())
        total += int(counted.sum())
    if not total:
        raise BadInput("no accuracy: the batches hold no targets (is the iterator already used up?)")
    return right / total


def perplexity(model: nn.Module, batches: Iterable[Any], predict: Predict | None = None) -> float:
    """exp of the mean negative log-likelihood (natural logarithm) over all target tokens of all batches.

    Every token weighs the same, however tokens fall into batches. For pairs ``(inputs, targets)`` the targets are aligned with
    the logits: the caller has shifted them. For mappings with ``labels`` (a Hugging Face causal model) position i predicts
    label i + 1, as those models' own loss does. Targets of -100 do not count. Arguments are as for :func:`accuracy`;
    infinite when the mean is too large for a float.

    Raises:
        BadInput: there is nothing to count, or logits and targets do not fit.
    """
    total, tokens = 0.0, 0
    for logits, targets in _predictions(model, batches, predict or _causal):
        flat = logits.reshape(-1, logits.shape[-1]).float()
        total += float(F.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED, reduction="sum"))
        tokens += int((targets != IGNORED).sum())
    if not tokens:
        raise BadInput("no perplexity: the batches hold no target tokens (is the iterator already used up?)")
    mean = total / tokens
    return math.exp(mean) if not mean > 700 else math.inf


def bleu(hypotheses: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]) -> float:
    """Corpus BLEU in [0, 100] by sacreBLEU with its default settings (Post 2018); quote :func:`bleu_signature` beside it.

    Args:
        hypotheses: detokenised output sentences.
        references: one reference sentence per hypothesis, or a list of such lists for several references.

    Raises:
        BadInput: no sentences, or lists of different lengths.
        MissingExtra: sacrebleu is not installed.
    """
    sets = [list(references)] if not references or isinstance(references[0], str) else [list(r) for r in references]
    if not hypotheses or any(len(one) != len(hypotheses) for one in sets):
        raise BadInput(f"BLEU of {len(hypotheses)} hypotheses against {[len(one) for one in sets]} references: give one each")
    return float(require("sacrebleu", "text").corpus_bleu(list(hypotheses), sets).score)


def bleu_signature() -> str:
    """sacreBLEU's description of the metric behind :func:`bleu`: case, tokenizer, smoothing and version."""
    metric = require("sacrebleu", "text").BLEU()
    metric.corpus_score(["a"], [["a"]])  # the signature is complete only after a first score
    return str(metric.get_signature())


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
