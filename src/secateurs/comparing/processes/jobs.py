"""What is common to all ways of carrying out runs: what a run is to them, and how it ends as done, failed or given up."""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from secateurs.comparing.processes.waiting import Job, Waiting
from secateurs.errors import SecateursError
from secateurs.measure.mode import computing_with

__all__ = ["DONE", "FAILED", "Crashed", "How", "NeedFailed", "Row", "Rows", "Tell", "bound_to_this_process"]

DONE, FAILED = "done", "failed"
Row = dict[str, Any]
Rows = Generator[Row, None, None]


class Tell(Protocol):
    """Called with the name of a run, its step and its number of steps."""

    def __call__(self, name: str, step: int, steps: int, /) -> None: ...


class Crashed(SecateursError):
    """The process that carried a run out is gone: killed, out of memory, or a fault in compiled code."""


class NeedFailed(SecateursError):
    """A run that this one needs failed, so this one was not started."""


@dataclass(frozen=True)
class How:
    """How runs are carried out: by functions of a module, so that any process can."""

    folder: Path
    threads: int
    execute: Callable[[Any, Path, Tell], Row]
    """``(run, folder, tell) -> row``."""
    failed: Callable[[Any, BaseException, float], Row]
    """``(run, error, seconds) -> row``."""

    def carry_out(self, run: Any, tell: Tell) -> tuple[str, Row]:
        """``("done", row)``, or ``("failed", row)`` whatever ``execute`` raises, an interrupt excepted."""
        start = time.perf_counter()
        try:
            with computing_with(self.threads):
                return DONE, self.execute(run, self.folder, tell)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in the user's code, too, ends a run and not the comparison
            return FAILED, self.failed(run, error, time.perf_counter() - start)

    def settle(self, waiting: Waiting[Any], run: Job, kind: str) -> Iterator[Row]:
        """``run`` has ended so: what waits for it may start, or is given up; yields the rows of the latter."""
        if kind == DONE:
            waiting.done(run.name)
            return
        for other, need in waiting.failed(run.name):
            yield self.failed(other, NeedFailed(f"its run {need} failed"), 0.0)


class _Checker(pickle.Pickler):
    """Pickles to nowhere; what a script defines is refused, for no other process runs the script."""

    def reducer_override(self, thing: Any) -> Any:
        """Called for functions and classes among others."""
        if getattr(thing, "__module__", None) == "__main__" and hasattr(thing, "__qualname__"):
            raise pickle.PicklingError(f"{thing.__qualname__} is defined in a script")
        return NotImplemented


def bound_to_this_process(run: Job) -> str:
    """Why ``run`` cannot be handed to another process; empty if it can."""
    try:
        _Checker(io.BytesIO()).dump(run)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return f"run {run.name} cannot be handed to another process ({error})"
    return ""
