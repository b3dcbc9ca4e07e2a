"""Runs on a Ray cluster: the same rows as side by side on one machine, written by the driver alone."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from secateurs.comparing.processes.jobs import FAILED, Crashed, How, Row, Rows, Tell, bound_to_this_process
from secateurs.comparing.processes.waiting import Waiting
from secateurs.comparing.processes.worker import sparingly
from secateurs.comparing.processes.workers import silent
from secateurs.errors import BadInput
from secateurs.extras import require

__all__ = ["work_on_ray"]

RETRIES = 2  # of a run whose process or node was lost: it goes on from its checkpoint
POLL = 0.5  # seconds between two looks at the progress
PATIENCE = 10.0  # seconds for a cluster to answer at all
UNSEEN = "unseen"


def work_on_ray(
    runs: Sequence[Any], folder: Path, *, address: str, execute: Callable[[Any, Path, Tell], Row],
    failed: Callable[[Any, BaseException, float], Row], threads: int = 1, tell: Tell = silent,
) -> Rows:  # fmt: skip
    """Carry out ``runs`` on the cluster at ``address`` and yield the row of each as it comes; see :func:`.workers.work`.

    Every run is a Ray task of ``threads`` CPUs, so the cluster decides how many run at a time. A run whose process or node
    was lost is tried again twice. Secateurs must be installed on every node, and ``folder``, this process's current folder
    and the user's modules must lie on a file system that all nodes share, under the same path: weights, masks and
    checkpoints go from run to run through it. Stopping the iteration cancels what is under way.

    Args:
        address: ``"host:port"`` of a running cluster, ``"auto"`` for the one this machine belongs to, or ``"local"`` to start
            one here. A connection that this process already has is used and left open.

    Raises:
        BadInput: no cluster answers at ``address``; the runs cannot be handed to another process; a node does not see
            ``folder``.
        MissingExtra: Ray is not installed.
    """
    ray = require("ray", "ray")
    if bound := next(filter(None, map(bound_to_this_process, runs)), ""):
        raise BadInput(f"ray={address!r}: {bound}; define it in a module of its own")
    return _on_cluster(ray, address, Waiting(runs), How(folder.resolve(), threads, execute, failed), tell)


def _on_cluster(ray: Any, address: str, waiting: Waiting[Any], how: How, tell: Tell) -> Rows:
    with _connected(ray, address), _marked(how.folder) as mark:
        notes = ray.remote(num_cpus=0)(_Notes).remote()
        task = ray.remote(num_cpus=how.threads, max_retries=RETRIES)(_on_a_node)
        place = (notes, mark, str(Path.cwd()), sys.path)
        under_way: dict[Any, Any] = {}
        try:
            while True:
                under_way |= {task.remote(pickle.dumps((how, run)), *place): run for run in iter(waiting.take, None)}
                if not under_way:
                    return
                ready, _ = ray.wait(list(under_way), timeout=POLL)
                for told in ray.get(notes.read.remote()):
                    tell(*told)
                for reference in ready:
                    run = under_way.pop(reference)
                    kind, row = _answer(ray, reference, run, how)
                    yield row
                    yield from how.settle(waiting, run, kind)
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)


def _answer(ray: Any, reference: Any, run: Any, how: How) -> tuple[str, Row]:
    try:
        kind, content = ray.get(reference)
    except ray.exceptions.RayError as error:
        text = str(error).strip().splitlines()
        return FAILED, how.failed(run, Crashed(f"Ray lost this run: {type(error).__name__}: {text[-1] if text else ''}"), 0.0)
    if kind == UNSEEN:
        raise BadInput(f"the node {content} does not see {how.folder}: the results folder must lie on a file system that all "
                       "nodes of the cluster share, under the same path")  # fmt: skip
    return kind, content


class _Notes:
    """An actor that keeps the latest progress of every run until the driver reads it."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[str, int, int]] = {}

    def tell(self, name: str, step: int, steps: int) -> None:
        """Called by the nodes."""
        self._latest[name] = (name, step, steps)

    def read(self) -> list[tuple[str, int, int]]:
        """Called by the driver."""
        told, self._latest = list(self._latest.values()), {}
        return told


def _on_a_node(pickled: bytes, notes: Any, mark: Path, here: str, path: list[str]) -> tuple[str, Any]:
    """The Ray task. The run comes pickled, since its functions are found only where the driver's paths are known."""
    if not mark.exists():
        return UNSEEN, socket.gethostname()
    os.chdir(here)
    sys.path.extend(entry for entry in path if entry not in sys.path)
    how, run = pickle.loads(pickled)
    return how.carry_out(run, sparingly(lambda *told: notes.tell.remote(*told), POLL))


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    try:
        _knock(address)
        _connect(ray, address)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise BadInput(f"ray={address!r}: no Ray cluster there ({str(error).splitlines()[0]}); give the address of a running "
                       "one (ray start --head prints it) or 'local'") from error  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Whether anybody listens at ``host:port``: Ray itself tries for minutes before it says that nobody does."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster begun on the user's behalf reports to nobody
        ray.init(address, include_dashboard=False, **quiet)
    else:
        ray.init(address, **quiet)


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file in ``folder`` by which a node sees that its folder of that path is the same."""
    mark = folder / f".shared-{os.urandom(8).hex()}"
    mark.touch()
    try:
        yield mark
    finally:
        with suppress(FileNotFoundError):
            mark.unlink()
