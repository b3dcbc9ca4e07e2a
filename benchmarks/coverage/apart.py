"""Every call in a process of its own, with a limit on its processor time and memory: what crashes or hangs is a row."""

from __future__ import annotations

import multiprocessing
import re
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

__all__ = ["Row", "apart", "one_line"]

Row = dict[str, Any]

PRELOAD = ["torch.export", "transformers.modeling_utils", "transformers.models.auto.modeling_auto",
           "benchmarks.coverage.architectures"]  # fmt: skip
MEMORY = 10 << 30  # bytes of address space
PATIENCE = 6  # wall-clock seconds for every second of processor time: other processes may hold the processors


def apart(call: Callable[[str], Row], names: Sequence[str], seconds: int, jobs: int = 1) -> Iterator[tuple[str, Row]]:
    """``(name, call(name))`` as they come, ``jobs`` at a time; ``{"reason": ...}`` for what took longer or died.

    Args:
        call: a function of a module.
        names: what to call it with.
        seconds: of processor time, for each.
        jobs: processes at a time.
    """
    context = multiprocessing.get_context("forkserver")  # torch and transformers are imported once; no thread is forked
    context.set_forkserver_preload(PRELOAD)
    running: dict[Connection, tuple[str, Any, float]] = {}
    todo = list(reversed(names))
    try:
        while todo or running:
            while todo and len(running) < jobs:
                ours, theirs = context.Pipe(duplex=False)
                name = todo.pop()
                process = context.Process(target=_serve, args=(call, name, seconds, theirs))
                process.start()
                theirs.close()
                running[ours] = (name, process, time.monotonic())
            for connection in _ready(running, PATIENCE * seconds):
                name, process, _ = running.pop(connection)
                yield name, _row(connection, process, seconds)
    finally:
        for _, process, _ in running.values():
            process.kill()


def one_line(error: BaseException, most: int = 300) -> str:
    """The error's type and what it says, shortened to one line."""
    text = re.sub(r"(?<![\w.:/])/[\w./-]+/(?=[\w.-]+)", "", " ".join(str(error).split()))  # files by their names alone
    return f"{type(error).__name__}: {text[:most]}".rstrip(": ")


def _ready(running: dict[Connection, tuple[str, Any, float]], patience: float) -> list[Connection]:
    ready = wait(list(running), timeout=1.0)
    late = [c for c, (_, _, began) in running.items() if time.monotonic() - began > patience]
    return [c for c in running if c in ready or c in late]


def _row(connection: Connection, process: Any, seconds: int) -> Row:
    row: Row | None = None
    if connection.poll():
        try:
            row = connection.recv()
        except EOFError:
            row = None
    process.join(0 if row is None and process.is_alive() else 5)
    if process.is_alive():
        process.kill()
        process.join()
    connection.close()
    return row if row is not None else {"reason": _end(process.exitcode, seconds)}


def _end(code: int | None, seconds: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"did not return within {seconds} s of processor time"
    return f"its process ended with {signal.Signals(-code).name if code and code < 0 else code}"


def _serve(call: Callable[[str], Row], name: str, seconds: int, connection: Connection) -> None:
    warnings.filterwarnings("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + seconds + 5))
    import torch

    torch.set_num_threads(1)
    try:
        row = call(name)
    except Exception as error:  # the row says so: one architecture must not end the others
        row = {"reason": one_line(error)}
    connection.send(row)
