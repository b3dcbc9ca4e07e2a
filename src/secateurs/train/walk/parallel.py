"""The processes that share a walk: each runs its part of the batches and prunes its part of every block.

Every exchange begins with everyone saying whether all is well, so an error in one process is raised in all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from secateurs.errors import BadInput, SecateursError
from secateurs.train.walk import wire
from secateurs.train.walk.wire import Lost

__all__ = ["Ranks", "is_told"]

_TOLD = "_told_to_all_processes"  # set on an error of which every process knows

T = TypeVar("T")


class _Merges(Protocol):
    """Sums that add up, such as :class:`secateurs.statistics.Accumulator`."""

    def state_dict(self) -> dict[str, Any]: ...

    def merge(self, other: Any) -> None: ...


M = TypeVar("M", bound=_Merges)


class Ranks:
    """The processes of a group, in step: each calls the same methods in the same order. By default one process by itself.

    Used as a context, around everything that may fail in one of them::

        with Ranks.of(distributed=True) as ranks:
            for i in ranks.share(len(batches)): ...

    Args:
        rank: the number of this process.
        size: of how many.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @classmethod
    def of(cls, distributed: bool) -> Ranks:
        """The processes of ``torch.distributed``'s default group, or this one by itself.

        Raises:
            BadInput: there is no group.
        """
        if not distributed:
            return cls()
        if not (dist.is_available() and dist.is_initialized()):
            raise BadInput("distributed=True, but this process belongs to no group: start the script with torchrun, and call "
                           "torch.distributed.init_process_group in it first")  # fmt: skip
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of ``count`` batches are this process's: neighbours, so that the processes' order is that of the batches.

        Raises:
            BadInput: some process would have none.
        """
        if count < self.size:
            raise BadInput(f"{count} calibration batches for {self.size} processes, and each needs one: give smaller batches, "
                           f"more of them, or start at most {count} processes")  # fmt: skip
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, value: Any = None) -> list[Any]:
        """What every process passed, in their order: JSON-able data."""
        return [value] if self.size == 1 else self._say({"value": value})

    def of_first(self, value: T) -> T:
        """What the first process passed: JSON-able data."""
        found: T = self.gather(value if self.first else None)[0]
        return found

    def check_same(self, **said: str) -> None:
        """Refuse to go on where a process was given something else: digests by the name of what they are of.

        Raises:
            BadInput: names the process and what differs.
        """
        others = self.gather(said)
        for rank, other in enumerate(others):
            differ = [name for name in said if other[name] != others[0][name]]
            if differ:
                raise BadInput(f"process {rank} was given other {' and '.join(differ)} than process 0: all are given the same, "
                               "and the whole list of batches, of which each takes its part")  # fmt: skip

    def union(self, mine: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every process's tensors by name, on the CPU; a name is in one of them only."""
        if self.size == 1:
            return dict(mine)
        found: dict[str, Tensor] = {}
        for rank, heads in enumerate(self.gather({name: wire.head(tensor) for name, tensor in mine.items()})):
            for name, head in heads.items():
                found[name] = mine[name].cpu() if rank == self.rank else wire.empty(head, torch.device("cpu"))
                wire.broadcast(found[name], rank)
        return found

    def spread(self, tensors: Iterable[tuple[Tensor, int]]) -> None:
        """Write into every tensor what it holds in the process whose rank stands beside it."""
        if self.size == 1:
            return
        self.gather()
        for tensor, owner in tensors:
            wire.broadcast(tensor, owner)

    def merged(
        self, mine: Mapping[str, M], kind: Any, owners: Mapping[str, int], devices: Mapping[str, torch.device]
    ) -> dict[str, M]:
        """Of the sums that processes have by name, those that this one owns, merged in the order of the processes.

        A process may lack some of the names. ``kind.from_state_dict`` makes sums of what others send, on the device by name.
        """
        if self.size == 1:
            return dict(mine)
        states = {name: one.state_dict() for name, one in mine.items()}
        heads = self.gather({name: {key: wire.head(v) for key, v in state.items()} for name, state in states.items()})
        found: dict[str, M] = {}
        for name, owner in owners.items():
            for rank in (rank for rank, head in enumerate(heads) if name in head):
                if rank == owner == self.rank:
                    found[name] = _added(found.get(name), mine[name])
                elif rank == self.rank:
                    wire.send(states[name], owner)
                elif owner == self.rank:
                    state = wire.receive(heads[rank][name], rank, devices[name])
                    found[name] = _added(found.get(name), kind.from_state_dict(state))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.size == 1:
            return
        if error is None:
            self.gather()  # one that has finished fails with another that has not
        elif isinstance(error, Exception) and not is_told(error):
            self._say({"failed": type(error).__name__, "text": str(error)})
            setattr(error, _TOLD, True)

    def _say(self, message: dict[str, Any]) -> list[Any]:
        """Every process's message; raises what another one failed by, unless this one has failed itself."""
        heard = [json.loads(text) for text in wire.texts(json.dumps(message), self.size)]
        for rank, one in enumerate(heard):
            if "failed" in one:
                if "failed" in message:
                    return []
                raise _error(rank, one["failed"], one["text"])
        return [one["value"] for one in heard]


def _error(rank: int, kind: str, text: str) -> Exception:
    """What another process failed by, as an error of the same kind where it is one of this library's."""
    known = {one.__name__: one for one in _kinds(SecateursError)}
    error = known[kind](text) if kind in known else RuntimeError(f"{kind}: {text}")
    error.add_note(f"This was raised in process {rank}.")
    setattr(error, _TOLD, True)
    return error


def is_told(error: BaseException) -> bool:
    """Whether an error, or one that it came of, has been raised in every process that there still is."""
    told = isinstance(error, Lost) or hasattr(error, _TOLD)
    return told or (error.__cause__ is not None and is_told(error.__cause__))


def _kinds(kind: type[SecateursError]) -> Iterator[type[SecateursError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _kinds(one)


def _added(total: M | None, more: M) -> M:
    if total is None:
        return more
    total.merge(more)
    return total
