"""Which filters stay: every way to choose them, or distinct ways drawn at random.

The ways to keep k of n things are numbered in lexicographic order, and those of several layers together as one number per way.
Drawing distinct ways is then drawing distinct whole numbers, exact for any population, however large.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from secateurs.errors import BadInput

__all__ = ["LIMIT", "Choice", "kept_sets", "population"]

LIMIT = 100_000  # retrainings of one study that may be asked for by "all"

Kept = tuple[tuple[int, ...], ...]
"""For each layer, the indices of the rows that stay, in rising order."""


@dataclass(frozen=True)
class Choice:
    """``keep`` of the ``rows`` of a layer stay."""

    rows: int
    keep: int

    @property
    def ways(self) -> int:
        """How many ways there are.

        >>> [Choice(10, keep).ways for keep in (8, 6, 5)]
        [45, 210, 252]
        """
        return math.comb(self.rows, self.keep)

    def way(self, number: int) -> tuple[int, ...]:
        """Way ``number`` of them in lexicographic order, from 0.

        >>> [Choice(3, 2).way(number) for number in range(3)]
        [(0, 1), (0, 2), (1, 2)]
        """
        chosen: list[int] = []
        for row in range(self.rows):
            missing = self.keep - len(chosen)
            if not missing:
                break
            with_row = math.comb(self.rows - row - 1, missing - 1)
            if number < with_row:
                chosen.append(row)
            else:
                number -= with_row
        return tuple(chosen)


def population(choices: Sequence[Choice]) -> int:
    """How many ways there are for all layers together: the product."""
    return math.prod(choice.ways for choice in choices)


def kept_sets(choices: Sequence[Choice], samples: int | None, seed: int) -> list[Kept]:
    """All ways to choose, or ``samples`` distinct ones drawn uniformly without replacement, in order of their number.

    Args:
        choices: one for each layer.
        samples: how many at most; None for all.
        seed: of the draw. Not used where all are taken.

    Raises:
        BadInput: all of more than :data:`LIMIT`.
    """
    total = population(choices)
    if samples is None and total > LIMIT:
        raise BadInput(f"samples='all' is {total} sets to retrain, more than {LIMIT}: give a number of samples")
    numbers = range(total) if samples is None or samples >= total else sorted(_distinct(total, samples, seed))
    return [_way(choices, number) for number in numbers]


def _distinct(total: int, count: int, seed: int) -> set[int]:
    """``random.sample`` takes no population beyond the machine's own integers; this is as even, and exact for any."""
    draw, drawn = random.Random(seed), set[int]()
    while len(drawn) < count:
        drawn.add(draw.randrange(total))
    return drawn


def _way(choices: Sequence[Choice], number: int) -> Kept:
    """The last layer changes fastest."""
    kept: list[tuple[int, ...]] = []
    for choice in reversed(choices):
        number, own = divmod(number, choice.ways)
        kept.append(choice.way(own))
    return tuple(reversed(kept))
