"""A moment of a training run, as a method that learns its scores meets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Moment"]


@dataclass(frozen=True)
class Moment:
    """The step that has been taken, and what can be known after it.

    Attributes:
        step: optimizer steps so far; 0 once, before the first masks are ranked.
        total_steps: of the run, where it is known.
        values: the weights as they are stored, by name; not to be written to.
        masks: in force, True = kept.
        gradients: of the loss on the next batch of the pruner's own ``data`` to the masked weights ``m * w``, at every entry,
            dead ones included; called once per moment, and not at step 0.
    """

    step: int
    total_steps: int | None
    values: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    gradients: Callable[[], dict[str, Tensor]]
