"""Runs that wait for others: each is held back until what it needs is done, and given up when that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["Job", "Waiting"]


class Job(Protocol):
    """What can be carried out side by side with others; a :class:`secateurs.comparing.spec.Run` is one."""

    @property
    def name(self) -> str:
        """Unique among the jobs of one call."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the jobs that must be done before this one starts."""


J = TypeVar("J", bound=Job)


class Waiting(Generic[J]):
    """Jobs in the order given. A need that is not among them counts as done; truthy while any is still to be taken.

    Args:
        jobs: all of them.
        group: jobs of one group share what is costly to load: a worker gets more of its last group where any is ready.
    """

    def __init__(self, jobs: Sequence[J], group: Callable[[J], object] = lambda job: None):
        self._jobs = {job.name: job for job in jobs}
        self._open = set(self._jobs)
        self._group = group

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def take(self, last: J | None = None) -> J | None:
        """The job to start now on a worker whose last one was ``last``; None if every one left waits for another."""
        ready = [job for job in self._jobs.values() if self._open.isdisjoint(job.needs)]
        if not ready:
            return None
        alike = [job for job in ready if last is not None and self._group(job) == self._group(last)]
        return self._jobs.pop((alike or ready)[0].name)

    def done(self, name: str) -> None:
        """What waited for ``name`` may start."""
        self._open.discard(name)

    def failed(self, name: str) -> Iterator[tuple[J, str]]:
        """Give up what needs ``name``, and what needs that: every such job with the name of the need that failed."""
        for job in [job for job in self._jobs.values() if name in job.needs]:
            if self._jobs.pop(job.name, None):
                yield job, name
                yield from self.failed(job.name)
