"""A batch with as many samples of every class."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from secateurs.errors import BadInput

__all__ = ["per_class"]


def per_class(batches: Iterable[tuple[Tensor, Tensor]], samples: int) -> tuple[Tensor, Tensor]:
    """The first ``samples`` of every class in ``(inputs, labels)`` batches, as one such batch in the order they came.

    GraSP is scored on 25 of each. All batches are gone through: which classes there are is known at the end.

    Raises:
        BadInput: no batch, fewer than one sample wanted, or a class that has fewer.
    """
    if samples < 1:
        raise BadInput(f"samples={samples} of every class: at least 1")
    taken: dict[int, int] = {}
    parts = []
    for inputs, labels in batches:
        chosen = [i for i, label in enumerate(labels.tolist()) if _count(taken, label) <= samples]
        parts.append((inputs[chosen], labels[chosen]))
    if not parts:
        raise BadInput("there is no batch to take samples from")
    if short := {label: n for label, n in sorted(taken.items()) if n < samples}:
        label, n = next(iter(short.items()))
        raise BadInput(f"class {label} has {n} samples, and {samples} of every class are wanted; give more batches")
    return torch.cat([inputs for inputs, _ in parts]), torch.cat([labels for _, labels in parts])


def _count(taken: dict[int, int], label: int) -> int:
    taken[label] = taken.get(label, 0) + 1
    return taken[label]
