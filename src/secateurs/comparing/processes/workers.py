"""Runs side by side, each in another process: one that crashes or is killed is a failed row, and the rest goes on."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

from secateurs.comparing.processes.jobs import FAILED, Crashed, How, Row, Rows, Tell, bound_to_this_process
from secateurs.comparing.processes.waiting import Waiting
from secateurs.comparing.processes.worker import TOLD, log_file, serve
from secateurs.errors import BadInput

__all__ = ["silent", "work"]


def silent(name: str, step: int, steps: int, /) -> None:
    """Progress that nobody wants to know."""


def work(
    runs: Sequence[Any], folder: Path, *, execute: Callable[[Any, Path, Tell], Row],
    failed: Callable[[Any, BaseException, float], Row], jobs: int = 1, threads: int = 1, tell: Tell = silent,
    group: Callable[[Any], object] = lambda run: None, here: bool | None = None,
) -> Rows:  # fmt: skip
    """Carry out ``runs``, ``jobs`` at a time, and yield the row of each as it comes, done or failed.

    A run starts when what it needs is done; what needs a failed run fails too, with :class:`.jobs.NeedFailed`. Stopping the
    iteration (an interrupt, ``close``) ends the processes; they end as well when this one is killed.

    Args:
        runs: :class:`~secateurs.comparing.processes.waiting.Job` objects that pickle.
        folder: handed to ``execute``; what runs print goes to its ``logs/<name>.txt``.
        execute: ``(run, folder, tell) -> row``, a function of a module. What it raises makes the run a failed one.
        failed: ``(run, error, seconds) -> row`` of a failed run, likewise.
        jobs: processes at a time.
        threads: of torch in each.
        tell: called in this process with the progress of the runs.
        group: runs of a group share what is costly to load; a process gets more of its last group where any is ready.
        here: in this process, one after the other, instead of in others. By default only where ``jobs`` is 1 and the runs
            hold functions that no other process can import: a crash then ends everything.

    Raises:
        BadInput: ``jobs`` is below 1, or above it with runs that cannot be handed to another process.
    """
    if jobs < 1:
        raise BadInput(f"jobs={jobs}: give the number of processes, at least 1")
    waiting, how = Waiting(runs, group), How(folder, threads, execute, failed)
    bound = next(filter(None, map(bound_to_this_process, runs)), "")
    if bound and jobs > 1:
        raise BadInput(f"jobs={jobs}: {bound}; define it in a module of its own, or use jobs=1")
    if here or (here is None and bound):
        return _one_by_one(waiting, how, tell)
    return _side_by_side(waiting, how, _Crew(min(jobs, len(runs)), how), tell)


def _one_by_one(waiting: Waiting[Any], how: How, tell: Tell) -> Rows:
    while (run := waiting.take()) is not None:
        kind, row = how.carry_out(run, tell)
        yield row
        yield from how.settle(waiting, run, kind)


def _side_by_side(waiting: Waiting[Any], how: How, crew: _Crew, tell: Tell) -> Rows:
    try:
        while crew.give_out(waiting):
            for run, kind, content in crew.news():
                if kind == TOLD:
                    tell(*content)
                else:
                    yield content
                    yield from how.settle(waiting, run, kind)
    finally:
        crew.stop()


@dataclass
class _Worker:
    process: Any
    connection: Connection
    run: Any = None
    last: Any = None
    since: float = 0.0

    def give(self, run: Any) -> None:
        """Let it carry out ``run``."""
        self.run, self.since = run, time.perf_counter()
        with suppress(OSError):  # it has just died: news() will say so, as if it had died a moment later
            self.connection.send(run)

    def news(self, how: How) -> Iterator[tuple[Any, str, Any]]:
        """``(run, kind, content)`` of all that it sent; a failed row if it died of a run."""
        over = not self.process.is_alive()  # asked first: what it sent before its end is then read to the end
        try:
            while self.connection.poll():
                kind, content = self.connection.recv()
                yield (self.run if kind == TOLD else self._take_back()), kind, content
        except (EOFError, OSError):
            over = True
        if over and self.run is not None:
            self.process.join()
            seconds = time.perf_counter() - self.since
            run = self._take_back()
            yield run, FAILED, how.failed(run, Crashed(_how_it_ended(self.process.exitcode, run.name, how.folder)), seconds)

    def _take_back(self) -> Any:
        self.last, self.run = self.run, None
        return self.last


class _Crew:
    """At most ``count`` long-lived processes, begun when there is something to do; one that died is replaced."""

    def __init__(self, count: int, how: How):
        self._count, self._how = count, how
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        atexit.register(self.stop)  # before multiprocessing's own, which would wait for them

    def give_out(self, waiting: Waiting[Any]) -> bool:
        """Give whoever is free what is ready; True while anybody works."""
        self._workers = [worker for worker in self._workers if worker.run is not None or worker.process.is_alive()]
        for worker in self._workers:
            if worker.run is None and (run := waiting.take(worker.last)) is not None:
                worker.give(run)
        while len(self._workers) < self._count and (run := waiting.take()) is not None:
            self._workers.append(self._begin())
            self._workers[-1].give(run)
        return any(worker.run is not None for worker in self._workers)

    def news(self) -> Iterator[tuple[Any, str, Any]]:
        """Wait until somebody reports or dies, and yield ``(run, kind, content)`` of all there is."""
        wait([thing for worker in self._workers for thing in (worker.connection, worker.process.sentinel)])
        for worker in self._workers:
            yield from worker.news(self._how)

    def stop(self) -> None:
        """End them, whatever they do: a run goes on from its last checkpoint another time."""
        atexit.unregister(self.stop)
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
        self._workers = []
        with suppress(OSError):  # somebody printed something
            log_file(self._how.folder, "").parent.rmdir()

    def _begin(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._how))  # no daemon: those may have no children
        with _without_main(), _interrupts_ignored():
            process.start()
        theirs.close()  # so that its death ends the connection
        return _Worker(process, ours)


@contextmanager
def _without_main() -> Iterator[None]:
    """A spawned process would run the caller's script again to find functions there, which runs cannot hold anyway."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process begun inside is born deaf to Ctrl-C, which reaches all processes of a terminal; the supervisor handles it."""
    if threading.current_thread() is not threading.main_thread():  # only there can it be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _how_it_ended(code: int | None, name: str, folder: Path) -> str:
    if code is not None and code < 0:
        how = f"by signal {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    else:
        how = f"with exit code {code}"
    return f"the process of this run ended {how}; what it printed: {log_file(folder, name).relative_to(folder)}"
