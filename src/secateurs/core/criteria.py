"""Criteria: how a weight is judged. Pure functions (weight, statistics) -> scores of the weight's shape; higher = keep.

A criterion declares the statistics it needs by name; whoever runs it supplies them: ``gradient`` (of the loss to the weight)
and ``noise`` (uniform in [0, 1), drawn from a seed and the weight's name, so it is the same on every device and worker).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import BadInput, near

__all__ = ["CRITERIA", "Criterion", "find_criterion", "noise"]

Statistics = Mapping[str, Tensor]


@dataclass(frozen=True)
class Criterion:
    """A scoring rule and the names of the statistics it needs."""

    name: str
    needs: frozenset[str]
    score: Callable[[Tensor, Statistics], Tensor]


def _zeros_lowest(weight: Tensor, scores: Tensor) -> Tensor:
    """Rank weights that are already zero below all others, keeping their own order: they count as pruned, not as candidates.

    Maps the non-negative scores of zeros to [-1, 0), increasing; one that is not finite stays what it is.
    """
    return torch.where((weight == 0) & torch.isfinite(scores), -1 / (1 + scores), scores)


def magnitude(weight: Tensor, statistics: Statistics) -> Tensor:
    """``|w|``."""
    return weight.abs()


def random(weight: Tensor, statistics: Statistics) -> Tensor:
    """Noise, whatever the weight; weights already zero first."""
    return _zeros_lowest(weight, statistics["noise"])


def gradient(weight: Tensor, statistics: Statistics) -> Tensor:
    """``|g|``, the loss's slope; weights already zero first."""
    return _zeros_lowest(weight, statistics["gradient"].abs())


def taylor(weight: Tensor, statistics: Statistics) -> Tensor:
    """``|w g|``: first-order change of the loss when w goes; at initialisation SNIP's connection sensitivity (Lee et al. 2019).

    Weights already zero go first, before others that no gradient reaches. 16-bit floats are multiplied as float32: their
    products fall below the smallest 16-bit number.
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    return _zeros_lowest(weight, (weight.to(exact) * statistics["gradient"].to(exact)).abs())


CRITERIA = {
    c.name: c
    for c in (
        Criterion("magnitude", frozenset(), magnitude),
        Criterion("random", frozenset({"noise"}), random),
        Criterion("gradient", frozenset({"gradient"}), gradient),
        Criterion("taylor", frozenset({"gradient"}), taylor),
    )
}


def find_criterion(name: str) -> Criterion:
    """The criterion called ``name``; :class:`BadInput` lists the known ones."""
    if name not in CRITERIA:
        raise BadInput(f"criterion={name!r} is unknown; use one of {', '.join(CRITERIA)}" + near(name, CRITERIA))
    return CRITERIA[name]


def noise(seed: int, name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform float32 noise in [0, 1) that depends on ``seed`` and ``name`` alone (drawn on the CPU, then moved)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.rand(shape, generator=generator).to(device)
