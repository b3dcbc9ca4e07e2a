"""Language modelling with a small trained Llama: windows of text of four domains, mixed in training, apart in validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.language.grid import DOMAINS
from benchmarks.language.text import dense, training_windows, validation

__all__ = ["Windows", "data", "model", "perplexity"]


class Windows:
    """A split of windows of token ids that are their own labels."""

    def __init__(self, ids: Tensor):
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """The windows with these numbers."""
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


class ByDomain(Windows):
    """Validation windows, with the domain of each."""

    def __init__(self, batches: Mapping[str, list[dict[str, Tensor]]]):
        super().__init__(torch.cat([batch["input_ids"] for found in batches.values() for batch in found]))
        self.batches_of = dict(batches)


def model() -> nn.Module:
    """The model as trained, a copy of its own."""
    return copy.deepcopy(dense())


def data(windows: int = 2048, length: int = 64, validated: int = 2) -> dict[str, Any]:
    """``windows`` training windows of ``length`` tokens, as many of every domain; of each, ``validated`` of 256 to test on.

    Latency and memory are measured with windows of ``length`` tokens.
    """
    each = windows // len(DOMAINS)
    train = torch.cat([training_windows(domain, each, length, seed=0) for domain in DOMAINS])
    test = ByDomain({domain: validation(domain, validated) for domain in DOMAINS})
    return {"train": Windows(train), "test": test, "example": lambda count: {"input_ids": train[:count]}}


def perplexity(model: nn.Module, split: Any) -> float:
    """The geometric mean of the domains' perplexities."""
    from secateurs.measure import perplexity

    values = [perplexity(model, batches) for batches in split.source.batches_of.values()]
    return math.exp(sum(map(math.log, values)) / len(values))
