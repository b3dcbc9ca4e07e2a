"""Schedules: when, and how much by then. Times are optimizer steps; step t is the moment after the t-th ``optimizer.step()``.

Updates happen at begin, begin + every, begin + 2 every, ... and always at end, where the final sparsity is met exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from secateurs.core.count import check_sparsity
from secateurs.errors import BadInput, near

__all__ = ["CURVES", "Schedule", "Turn", "layerwise", "resolve_step", "together"]


def _exponential(p: float, initial: float, final: float) -> float:
    """Density falls by the same factor in equal times, as in iterative pruning of a fixed share of the survivors."""
    ratio = (1 - final) / (1 - initial)
    return (1 - ratio**p) / (1 - ratio) if ratio < 1 else p


def _cyclic(p: float, cycles: int) -> float:
    """Cubic ramps end to end (Srinivas et al. 2022): every cycle starts again from the initial sparsity."""
    return _cubic(1.0) if p >= 1 else _cubic(p * cycles % 1)


def _cubic(p: float) -> float:
    return 1 - (1 - p) ** 3


# Progress in [0, 1] over begin..end -> share of the way from the initial to the final sparsity.
CURVES: dict[str, Callable[[float], float]] = {
    "one-shot": lambda p: 1.0,
    "constant": lambda p: 1.0,
    "linear": lambda p: p,
    "cubic": _cubic,
    "cosine": lambda p: (1 - math.cos(math.pi * p)) / 2,
    "exponential": lambda p: p,  # falls with the density instead: see Schedule.sparsity
    "geometric": lambda p: p,  # as exponential, by events: see Schedule.sparsity
    "cyclic": _cubic,  # repeated: see Schedule.sparsity
}


@dataclass(frozen=True)
class Schedule:
    """Sparsity as a function of the step.

    ``cubic`` is ``s_f + (s_i - s_f) (1 - (t - t_0) / (t_n - t_0))^3`` (Zhu & Gupta 2017, eq. 1).
    ``geometric`` removes at each of the n updates the same share ``r = 1 - (1 - s_f)^(1/n)`` of what is left, at the first one
    too: density ``(1 - r)^(j+1)`` after update j = 0, 1, ... (Jin et al. 2025). ``exponential`` is the same curve through n - 1
    intervals: its first update, at begin, still has the initial sparsity.
    """

    final: float
    begin: int = 0
    end: int = 0
    every: int = 1
    curve: str = "cubic"
    initial: float = 0.0
    cycles: int = 4

    def __post_init__(self) -> None:
        check_sparsity(self.final)
        check_sparsity(self.initial, "initial_sparsity")
        if self.curve not in CURVES:
            raise BadInput(f"schedule={self.curve!r} is unknown; use one of {', '.join(CURVES)}" + near(self.curve, CURVES))
        if self.begin < 0 or self.begin > self.end:
            raise BadInput(f"begin={self.begin} must not be negative or after end={self.end}")
        if self.every < 1 or self.cycles < 1:
            raise BadInput(f"every={self.every}, cycles={self.cycles}: both are at least 1")
        if self.initial > self.final:
            raise BadInput(f"initial_sparsity={self.initial} is above the final {self.final}; a ramp only rises")

    def sparsity(self, step: int) -> float:
        """The target after ``step`` steps: the initial one before begin, the final one from end on."""
        if step < self.begin:
            return self.initial
        if step >= self.end:
            return self.final
        p = (step - self.begin) / (self.end - self.begin)
        if self.curve in ("exponential", "geometric"):
            way = _exponential(p if self.curve == "exponential" else self._events(step), self.initial, self.final)
        else:
            way = _cyclic(p, self.cycles) if self.curve == "cyclic" else CURVES[self.curve](p)
        return min(self.initial + (self.final - self.initial) * way, self.final)  # rounding may carry the sum one bit too far

    def _events(self, step: int) -> float:
        """Share of the updates that are over once the one at ``step`` is."""
        return ((step - self.begin) // self.every + 1) / (-(-(self.end - self.begin) // self.every) + 1)

    def is_update(self, step: int) -> bool:
        """Whether masks are ranked anew at ``step``. One-shot: only at begin."""
        if self.curve == "one-shot":
            return step == self.begin
        return step == self.end or (self.begin <= step < self.end and (step - self.begin) % self.every == 0)

    def next_update(self, step: int) -> int | None:
        """The first update at or after ``step``, or None when all are over."""
        if self.curve == "one-shot":
            return self.begin if step <= self.begin else None
        if step > self.end:
            return None
        ahead = max(step, self.begin) - self.begin
        return min(self.begin + -(-ahead // self.every) * self.every, self.end)

    def previous_update(self, step: int) -> int | None:
        """The last update before ``step``, or None if ``step`` is at or before the first."""
        if step <= self.begin:
            return None
        if step > self.end:
            return self.end
        return self.begin + (step - 1 - self.begin) // self.every * self.every

    def updates(self) -> Iterable[int]:
        """All update steps in order."""
        step = self.next_update(0)
        while step is not None:
            yield step
            step = self.next_update(step + 1)

    def average_density(self, total_steps: int) -> float:
        """Mean density over the steps 1..total_steps, each trained under the masks of the update before it, the first dense."""
        if total_steps < 1:
            raise BadInput(f"total_steps={total_steps} must be at least 1")
        kept, current, last = 0.0, 1.0, 0
        for step in [u for u in self.updates() if u < total_steps]:
            kept += current * (step - last)
            current, last = 1 - self.sparsity(step), step
        return (kept + current * (total_steps - last)) / total_steps


@dataclass(frozen=True)
class Turn:
    """At this step the layers with these indices are ranked anew, to the sparsity the schedule has at ``at``."""

    layers: range
    at: int


def together(schedule: Schedule, step: int, layers: int) -> Turn | None:
    """All layers at every update."""
    return Turn(range(layers), step) if schedule.is_update(step) else None


def layerwise(schedule: Schedule, step: int, layers: int) -> Turn | None:
    """One layer at a time: the steps up to an update are cut into as many slots as there are layers (Zhu & Gupta 2017, GNMT).

    After the update's step all layers have its target. The first update has no steps before it and takes all layers.
    """
    after, target = schedule.previous_update(step), schedule.next_update(step)
    if target is None:
        return None
    if after is None:
        return together(schedule, step, layers)
    span = target - after

    def done(upto: int) -> int:
        return (upto - after) * layers // span

    turn = range(done(step - 1), done(step))
    return Turn(turn, target) if turn else None


def resolve_step(value: int | float | str, total_steps: int | None, what: str) -> int:
    """A moment as a step: an integer is one, a float in [0, 1] a share of ``total_steps``.

    Raises:
        BadInput: a share without ``total_steps``, a share outside [0, 1], a negative step, or a step behind the last one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{what}={value!r}: give a step (an integer) or a share of training (a float from 0 to 1)")
    if isinstance(value, float):
        if not 0 <= value <= 1:
            raise BadInput(f"{what}={value!r}: a float is a share of training, from 0.0 to 1.0; for a step give an integer")
        if total_steps is None:
            raise BadInput(f"{what}={value!r} is a share of training, so total_steps is needed too (or give {what} as an "
                           "integer step)")  # fmt: skip
        return math.floor(value * total_steps + 0.5)
    if value < 0:
        raise BadInput(f"{what}={value}: a step is not negative")
    if total_steps is not None and value > total_steps:
        raise BadInput(f"{what}={value} is behind the last of {total_steps} training steps; the schedule must fit into "
                       "training")  # fmt: skip
    return value
