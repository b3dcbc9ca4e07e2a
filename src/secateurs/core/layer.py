"""A weight as a method meets it in a block-by-block walk, and what the method makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from secateurs.core.structures import Structure

__all__ = ["Layer", "Solution"]


@dataclass(frozen=True)
class Layer:
    """A weight of ``[parts, out, in]`` matrices: one for a linear layer, one per expert, one per group of a convolution.

    Attributes:
        name: of the parameter.
        matrices: its dense values; not to be written to.
        remove: how many weights go, of all parts together.
        structure: what leaves together.
        measured: sums over the tokens each part has read, by name, one per part: ``"gram"`` ``[in, in]``.
        kept: the mask ``[parts, out, in]`` by the recipe's criterion, computed when it is called.
        shared: one dict for all layers that read the same input, for what is computed once.
        taps: columns per input channel, above 1 for a convolution, whose columns are ordered channel by channel.
    """

    name: str
    matrices: Tensor = field(repr=False)
    remove: int
    structure: Structure
    measured: Mapping[str, tuple[Tensor, ...]] = field(repr=False)
    kept: Callable[[], Tensor] = field(repr=False)
    shared: dict[str, Any] = field(default_factory=dict, repr=False)
    taps: int = 1


@dataclass(frozen=True)
class Solution:
    """What a method makes of a layer: the mask ``kept`` (True = stays), both ``[parts, out, in]``, and new values if any.

    Without ``values`` what stays is as it was, to the bit. ``facts`` are numbers for the report; ``"error"`` is the layer's
    squared output error on the calibration tokens, as a share of its squared output.
    """

    kept: Tensor
    values: Tensor | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
