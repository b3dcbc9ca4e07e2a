"""How many indices every group loses: ranked by score in a scope, cut where a share or a budget is met, never above it.

All that may go is put in one order. A budget is met by the shortest beginning of the order that fits it: since a cost never
grows when more goes, it is found by halving, with the cost counted exactly each time. So the result fits, and without its last
step it would not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from secateurs.core.count import removed_count
from secateurs.errors import BadInput

__all__ = ["Order", "Queue", "rank"]


@dataclass(frozen=True)
class Queue:
    """The indices of one group in the order in which they go.

    Attributes:
        name: of the group.
        scores: float64 ``[size]``, ascending: of the index that goes first, and so on.
        scope: queues of one scope are ranked against each other, and lose the same share together.
        least: how many stay at least.
        round_to: what is kept is a multiple of it, rounded down, or everything.
        weight: how many indices a step removes: 1, or the number of groups whose counts are tied, or of parents of ragged
            children.
    """

    name: str
    scores: Tensor
    scope: str = ""
    least: int = 1
    round_to: int = 1
    weight: int = 1

    @property
    def size(self) -> int:
        """How many steps there are in all."""
        return len(self.scores)

    def stops(self) -> list[int]:
        """The lawful kept counts below all, descending; none where rounding leaves only the whole."""
        lowest = max(self.least, min(self.round_to, self.size))
        first = (self.size - 1) // self.round_to * self.round_to
        return [kept for kept in range(first, 0, -self.round_to) if kept >= lowest]


@dataclass(frozen=True)
class Order:
    """All steps in the order in which they are taken: step i leaves queue ``queue[i]`` with ``kept[i]``."""

    queues: tuple[Queue, ...]
    queue: np.ndarray
    kept: np.ndarray
    before: np.ndarray  # indices of the step's scope that went before it

    def after(self, steps: int) -> dict[str, int]:
        """What every queue keeps after the first ``steps``."""
        kept = np.array([queue.size for queue in self.queues], dtype=np.int64)
        kept[self.queue[:steps]] = self.kept[:steps]  # of several steps of a queue, the last is what remains
        return {queue.name: int(count) for queue, count in zip(self.queues, kept, strict=True)}

    def by_share(self, share: float) -> dict[str, int]:
        """What is kept where ``share`` of every scope goes: ``floor(share N + 1/2)`` of N indices, or with steps of several
        indices the fewest steps that reach it. A queue alone in its scope counts steps, and stops at the fewest it may keep.

        Raises:
            BadInput: a scope cannot lose so many with what its groups must keep.
        """
        taken = np.zeros(len(self.queue), dtype=bool)
        scope_of = np.array([queue.scope for queue in self.queues], dtype=object)[self.queue]
        for scope in dict.fromkeys(queue.scope for queue in self.queues):
            mine = [queue for queue in self.queues if queue.scope == scope]
            size = sum(queue.size * queue.weight for queue in mine)
            remove = _removed(mine, share)
            can = sum((queue.size - min(queue.stops(), default=queue.size)) * queue.weight for queue in mine)
            if remove > can and len(mine) > 1:
                raise BadInput(f"ratio={share:g} of {size} indices is {remove}, but only {can} can go: each of the {len(mine)} "
                               f"groups, {mine[0].name!r} among them, keeps some; ask for less")  # fmt: skip
            taken |= (scope_of == scope) & (self.before < remove)
        return Order(self.queues, self.queue[taken], self.kept[taken], self.before[taken]).after(int(taken.sum()))

    def to_fit(self, fits: Callable[[Mapping[str, int]], bool], what: str) -> dict[str, int]:
        """The fewest steps after which ``fits`` holds; it must not cease to hold when more goes.

        Raises:
            BadInput: it does not hold even when all that may go has gone; ``what`` was asked for is quoted.
        """
        low, high = 0, len(self.queue)
        if not fits(self.after(high)):
            raise BadInput(what)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(self.after(middle)) else (middle + 1, high)
        return self.after(low)


def _removed(scope: Sequence[Queue], share: float) -> int:
    """How many indices of the queues of a scope go."""
    if len(scope) == 1:
        return removed_count(scope[0].size, share, scope[0].least) * scope[0].weight
    return removed_count(sum(queue.size * queue.weight for queue in scope), share, least=0)


def rank(queues: Sequence[Queue]) -> Order:
    """The order in which all that may go does.

    In a scope the lowest score goes first; of equal ones the later queue's, so that the earlier is kept. Scopes take turns so
    that at every moment each has lost the same share: of N indices the k-th goes at the share ``(k - 1/2) / N``, where rounding
    to the nearest count would remove it. A step that removes several goes when the first of them would.
    """
    found: list[tuple[float, int, int, int, int]] = []
    for place, scope in enumerate(dict.fromkeys(queue.scope for queue in queues)):
        mine = [number for number, queue in enumerate(queues) if queue.scope == scope]
        size = sum(queues[number].size * queues[number].weight for number in mine)
        gone = 0
        for _, _, number, minus_kept, removed in sorted(step for n in mine for step in _steps(queues[n], n)):
            weight = queues[number].weight
            found.append(((gone + weight / 2) / size, place, number, -minus_kept, gone))
            gone += removed * weight
    found.sort(key=lambda step: (step[0], -step[1]))  # stable: a scope's own order stays
    columns = [np.array(column, dtype=np.int64) for column in list(zip(*found, strict=True))[2:]] or [np.zeros(0, np.int64)] * 3
    return Order(tuple(queues), *columns)


def _steps(queue: Queue, number: int) -> list[tuple[float, int, int, int, int]]:
    """Every step of a queue, in a form that sorts: score of the first to go, later queues first, queue, -kept, removed."""
    scores, steps = queue.scores.tolist(), []
    size = now = len(scores)
    for kept in queue.stops():
        steps.append((scores[size - now], -number, number, -kept, now - kept))
        now = kept
    return steps
