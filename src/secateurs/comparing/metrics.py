"""Metrics by name: what a recipe's ``metric:`` may say, which direction is better, how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from secateurs.errors import BadInput
from secateurs.measure import accuracy, bleu, calibration_error, cross_entropy, perplexity, word_error_rate
from secateurs.measure.mode import evaluating

__all__ = ["METRICS", "Metric"]

TOGETHER = 250  # examples of one forward pass; fixed, because the last bits of a mean depend on it


@dataclass(frozen=True)
class Metric:
    """A number that says what a model is worth on a split of the data.

    ``measure(model, split)`` runs the model in evaluation mode without gradients and leaves it as it was. A split has
    ``batches(size)``, a :class:`secateurs.comparing.running.data.Split`. The metrics of text, ``bleu`` and ``word-error-rate``,
    want the task's own split object to decode besides: its ``texts(model)`` returns ``(hypotheses, references)``, two lists of
    as many sentences (for ``bleu`` the references may be several such lists); how a model generates is the task's own affair.
    """

    name: str
    direction: str
    """``higher`` or ``lower`` is better."""
    percent: bool
    """A share in [0, 1] that is shown times 100, so that differences are percentage points."""
    measure: Callable[[nn.Module, Any], float]


Score = Callable[[nn.Module, Iterator[Any]], float]


def _by_batch(score: Score) -> Callable[[nn.Module, Any], float]:
    return lambda model, split: score(model, split.batches(TOGETHER))


def _by_text(name: str, score: Callable[..., float]) -> Callable[[nn.Module, Any], float]:
    def measure(model: nn.Module, split: Any) -> float:
        texts = getattr(getattr(split, "source", split), "texts", None)
        if texts is None:
            raise BadInput(f"metric {name!r} compares sentences: give the split a method texts(model) that returns "
                           "(hypotheses, references), two lists of sentences")  # fmt: skip
        with evaluating(model):
            return score(*texts(model))

    return measure


_ALL = (
    Metric("top-1", "higher", True, _by_batch(accuracy)),
    Metric("top-5", "higher", True, _by_batch(partial(accuracy, top=5))),
    Metric("loss", "lower", False, _by_batch(cross_entropy)),
    Metric("perplexity", "lower", False, _by_batch(perplexity)),
    Metric("calibration-error", "lower", True, _by_batch(calibration_error)),
    Metric("bleu", "higher", False, _by_text("bleu", bleu)),
    Metric("word-error-rate", "lower", True, _by_text("word-error-rate", word_error_rate)),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
"""Every metric a recipe can name."""
