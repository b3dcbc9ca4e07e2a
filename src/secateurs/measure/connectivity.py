"""Linear mode connectivity: what the loss does on the straight line between two networks (Frankle et al. 2020, Linear Mode
Connectivity and the Lottery Ticket Hypothesis)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from secateurs.errors import BadInput

__all__ = ["Segment", "segment"]


@dataclass(frozen=True)
class Segment:
    """Errors (or losses) of networks on the straight line from one to the other, ``values[i]`` at ``places[i]`` in [0, 1].

    ``barrier`` is the largest excess over the straight line between the ends' own values, at least 0; ``instability`` the
    largest value less the mean of the ends', the published error barrier, also at least 0. Two networks are linearly
    connected where it is within the noise of the measure.
    """

    places: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def instability(self) -> float:
        """``max over alpha of E(alpha) - (E(0) + E(1)) / 2``, at least 0."""
        return max(0.0, max(self.values) - (self.values[0] + self.values[-1]) / 2)

    @property
    def barrier(self) -> float:
        """``max over alpha of E(alpha) - ((1 - alpha) E(0) + alpha E(1))``, at least 0."""
        first, last = self.values[0], self.values[-1]
        return max(0.0, *(v - (1 - a) * first - a * last for a, v in zip(self.places, self.values, strict=True)))


def segment(first: nn.Module, second: nn.Module, error: Callable[[nn.Module], float], steps: int = 10,
            prepare: Callable[[nn.Module], object] | None = None) -> Segment:  # fmt: skip
    """Measure ``error`` at ``steps + 1`` even places from ``first`` to ``second``; neither is changed.

    Parameters and floating-point buffers are interpolated, ``(1 - alpha) a + alpha b``, in their own dtype; other buffers are
    the first's. Running statistics of batch norms between the ends belong to no network: give ``prepare`` to take them anew,
    as in ``lambda model: reestimate(model, batches)`` (:func:`secateurs.train.reestimate.reestimate`); it is called at every
    place, the ends included.

    Args:
        error: of a network; lower is better (a loss, or one minus an accuracy).
        steps: intervals, 1 or more.

    Raises:
        BadInput: the networks have other tensors, or ``steps`` is below 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise BadInput(f"steps={steps!r}: give a whole number of intervals, at least 1")
    a, b = first.state_dict(), second.state_dict()
    if odd := [name for name in {**a, **b} if name not in a or name not in b or a[name].shape != b[name].shape]:
        raise BadInput(f"the two networks are not of one shape: {odd[0]!r} is not in both, or not alike")
    between = copy.deepcopy(first)
    places = tuple(i / steps for i in range(steps + 1))
    values = []
    for alpha in places:
        between.load_state_dict({n: torch.lerp(x, b[n], alpha) if x.is_floating_point() else x for n, x in a.items()})
        if prepare is not None:
            prepare(between)
        values.append(float(error(between)))
    return Segment(places, tuple(values))
