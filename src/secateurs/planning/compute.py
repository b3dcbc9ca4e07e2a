"""Moments of a training run as shares of its compute, and how long a sparse run is that costs as much as a dense one.

A step under masks of density d costs d steps of the dense model (6 N d FLOPs a token, with N the selected weights), so a share
of compute is a share of the sum of densities over the steps, not of their number (Jin et al. 2025, The Journey Matters).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

from secateurs.core.schedules import Schedule
from secateurs.errors import BadInput

__all__ = ["by_compute", "compute_share", "same_compute"]

_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*% of compute\s*")
_ROUNDS = 50  # of a fixed point that mostly settles within five


def compute_share(value: object, what: str) -> float | None:
    """0.25 of ``"25% of compute"``; None of what is no text.

    Raises:
        BadInput: another text, or more than all of it.
    """
    if not isinstance(value, str):
        return None
    found = _SHARE.fullmatch(value)
    if not found or float(found[1]) > 100:
        raise BadInput(f"{what}={value!r}: as text this is a share of the run's compute, as in '25% of compute'; an integer is "
                       "a step, a float a share of the steps")  # fmt: skip
    return float(found[1]) / 100


def by_compute(schedule: Schedule, begin: float, end: float, total_steps: int) -> Schedule:
    """``schedule`` moved to where ``begin`` and ``end`` of the compute of a run of ``total_steps`` are spent.

    To the nearest step. ``schedule`` says all but begin and end.

    Raises:
        BadInput: ``begin`` is after ``end``, one lies outside [0, 1], or there is no step.
    """
    _check(begin, end)
    if total_steps < 1:
        raise BadInput(f"total_steps={total_steps} must be at least 1")
    left = 1 - schedule.final

    def compute(ramp: float) -> float:
        return total_steps / (begin + (end - begin) / ramp + (1 - end) / left)

    return _settle(schedule, begin, end, compute, total_steps)


def same_compute(
    sparsity: float,
    dense_steps: int,
    begin: float = 0.25,
    end: float = 0.75,
    every: int = 100,
    curve: str = "geometric",
) -> tuple[Schedule, int]:
    """The schedule and the length of a run that costs what ``dense_steps`` of the dense model cost.

    Args:
        sparsity: in the end, in [0, 1).
        dense_steps: length of the dense run.
        begin, end: shares of the compute at which pruning begins and ends.
        every: steps between updates.
        curve: of :data:`secateurs.core.schedules.CURVES`.

    Returns:
        The schedule, in steps, and ``total_steps``: with it the sum of the densities over the steps, which is
        ``schedule.average_density(total_steps) * total_steps``, is ``dense_steps`` to half a sparse step.

    Raises:
        BadInput: ``begin`` is after ``end``, one lies outside [0, 1], or there is no step.
    """
    _check(begin, end)
    if dense_steps < 1:
        raise BadInput(f"dense_steps={dense_steps} must be at least 1")
    found = _settle(Schedule(sparsity, every=every, curve=curve), begin, end, lambda ramp: dense_steps, None)
    spent = _spent(found)
    return found, found.end + max(0, math.floor((dense_steps - spent) / (1 - sparsity) + 0.5))


def _settle(schedule: Schedule, begin: float, end: float, compute: Callable[[float], float], last: int | None) -> Schedule:
    """Find begin and end for a mean density of the ramp, that density for them, and so on until nothing changes.

    ``compute(ramp)`` are the run's dense steps, of the ramp's mean density.
    """
    seen: list[Schedule] = []
    ramp = 1.0
    for _ in range(_ROUNDS):
        whole = compute(ramp)
        first = _nearest(begin * whole)
        final = first + _nearest((end - begin) * whole / ramp)
        if last is not None:
            first, final = min(first, last), min(final, last)
        found = replace(schedule, begin=first, end=final)
        if found in seen:  # settled, or going round between neighbours
            break
        seen.append(found)
        ramp = (_spent(found) - first) / (final - first) if final > first else 1.0
    return found


def _spent(schedule: Schedule) -> float:
    """Dense steps' worth of compute until the end of the ramp."""
    return schedule.average_density(schedule.end) * schedule.end if schedule.end else 0.0


def _nearest(steps: float) -> int:
    return math.floor(steps + 0.5)


def _check(begin: float, end: float) -> None:
    if not 0 <= begin <= end <= 1:
        raise BadInput(f"begin={begin}, end={end}: shares of compute from 0 to 1, begin not after end")
