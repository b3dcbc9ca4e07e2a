"""The life of a worker process: take a run, carry it out, send its row; end when the supervisor has."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from secateurs.comparing.processes.jobs import How, Tell

__all__ = ["TOLD", "log_file", "serve", "sparingly"]

TOLD = "told"
EVERY = 0.1  # seconds between two reports of a run: a small network makes thousands of steps in one


def serve(connection: Connection, how: How) -> None:
    """Carry out every run that comes through ``connection`` until it ends. Sends ``(kind, row)``, and progress as ``TOLD``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the supervisor to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tell = sparingly(lambda *told: connection.send((TOLD, told)))
    while True:
        try:
            run = connection.recv()
        except EOFError:
            return
        with _printing_to(log_file(how.folder, run.name)):
            answer = how.carry_out(run, tell)
        connection.send(answer)


def log_file(folder: Path, name: str) -> Path:
    """Where that is what a run prints."""
    return folder / "logs" / f"{name}.txt"


def sparingly(tell: Tell, every: float = EVERY) -> Tell:
    """``tell``, but not more often than every so many seconds, and at a run's last step."""
    spoke = 0.0

    def told(name: str, step: int, steps: int) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke >= every or step >= steps:
            spoke = now
            tell(name, step, steps)

    return told


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the supervisor was killed: there is nobody to take the row


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """What is printed inside, by compiled code and about a crash too, goes to the end of a file, which is kept if not empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if path.stat().st_size == 0:
            path.unlink()
