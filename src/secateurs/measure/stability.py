"""How far apart two trainings of one subnetwork end: the stability measures of Frankle et al. 2019, Stabilizing the Lottery
Ticket Hypothesis, section 4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from secateurs.errors import BadInput

__all__ = ["Distance", "distance"]


@dataclass(frozen=True)
class Distance:
    """Between two sets of weights: ``l2``, ``||a - b||_2``, and ``angle``, ``arccos(<a, b> / (||a|| ||b||))`` in degrees.

    The angle is 0 for vectors that are both zero, and 90 where one is.
    """

    l2: float
    angle: float


def distance(first: nn.Module | Mapping[str, Tensor], second: nn.Module | Mapping[str, Tensor],
             masks: Mapping[str, Tensor]) -> Distance:  # fmt: skip
    """How far apart two trainings are, over the weights that ``masks`` (True = kept) keep; all else counts as zero in both.

    *Stability to pruning*: the first is the subnetwork trained alone, the second the dense network trained. *Stability to
    data order*: two copies of the subnetwork, trained in two orders of the data. Lower is more stable; it is 0 for equal
    weights and does not change when the two are exchanged. Sums are in float64. Weights are compared, not functions: two
    networks whose batch norms have other scales may compute the same.

    Args:
        first, second: modules, or weights by name.
        masks: by name.

    Raises:
        BadInput: a masked weight is missing from one of them, or has another shape there.
    """
    a, b = (_weights(one, masks) for one in (first, second))
    apart = inner = ours = theirs = 0.0
    for name, mask in masks.items():
        x, y = (one[name].detach().double().cpu()[mask.cpu()] for one in (a, b))
        apart += float((x - y).square().sum())
        inner, ours, theirs = inner + float(x @ y), ours + float(x @ x), theirs + float(y @ y)
    return Distance(math.sqrt(apart), _angle(apart, inner, ours, theirs))


def _angle(apart: float, inner: float, ours: float, theirs: float) -> float:
    """In degrees."""
    if not ours or not theirs:
        return 0.0 if ours == theirs else 90.0
    cosine = max(-1.0, min(1.0, inner / math.sqrt(ours * theirs)))
    if not apart:
        return 0.0
    return math.degrees(math.acos(cosine))


def _weights(one: nn.Module | Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    found = dict(one.named_parameters(remove_duplicate=False)) if isinstance(one, nn.Module) else one
    for name, mask in masks.items():
        if name not in found or found[name].shape != mask.shape:
            has = f"has it with shape {tuple(found[name].shape)}" if name in found else "lacks it"
            raise BadInput(f"the masks are of {name!r} with shape {tuple(mask.shape)}, and one of the two networks {has}")
    return found
