"""Runs side by side: spawned processes of one thread each, which report their steps and end when the experiment does."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from secateurs.demo.settings import Job
from secateurs.demo.training import Tell, train

__all__ = ["one_thread", "workers"]

Rows = Iterator[dict[str, Any]]
_worker: dict[str, Any] = {}  # what a spawned process was given at its start; stays empty in the experiment's own


@contextmanager
def workers(count: int, tell: Tell) -> Iterator[Callable[[Sequence[Job], Path], Rows]]:
    """A function that runs jobs and yields their rows as they finish; with ``count=1`` in this process, one after the other.

    One thread each, always: the bits of a result then do not depend on how many run at a time.
    """
    if count == 1:
        with one_thread():
            yield lambda jobs, folder: (train(job, folder, tell) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    told, stop = context.Queue(), context.Event()
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(told, stop))
    try:
        yield partial(_side_by_side, pool, told, tell)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _side_by_side(pool: ProcessPoolExecutor, told: Any, tell: Tell, jobs: Sequence[Job], folder: Path) -> Rows:
    pending = {pool.submit(_train, job, folder) for job in jobs}
    while pending:
        done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
        _pass_on(told, tell)
        for future in done:
            yield future.result()


def _pass_on(told: Any, tell: Tell) -> None:
    while True:
        try:
            tell(*told.get_nowait())
        except queue.Empty:
            return


def _begin(told: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the experiment's to handle
    told.cancel_join_thread()  # nobody reads the last reports of a stopped experiment
    torch.set_num_threads(1)
    _worker.update(told=told, stop=stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the experiment was killed: there is nobody to take the result


def _train(job: Job, folder: Path) -> dict[str, Any]:
    return train(job, folder, _tell)


def _tell(name: str, step: int, steps: int) -> None:
    if _worker["stop"].is_set():
        raise SystemExit("the experiment was stopped")
    _worker["told"].put((name, step, steps))
