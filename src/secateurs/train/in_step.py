"""Several forwards side by side, which wait for one another at given layers.

What a layer of a pruned network should become depends on what it reads over all of the calibration data, and what the next
layer reads depends on that. Here every batch's forward runs once: at each station all of them stop, what they brought is
handed over, and then they go on, with whatever was changed meanwhile. Memory holds what is live at that place of all batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from secateurs.errors import BadInput

__all__ = ["Stop", "in_step"]

#: At a station: (its name, what each run's module there is called with first), in the order of the runs.
Stop = Callable[[str, list[Any]], None]


class _Leave(BaseException):
    """Ends a forward whose rest is not wanted. Not an Exception: the model's own handlers let it pass."""


class _Run:
    """One forward on a thread of its own; only one of all threads runs at a time, and which one is not left to chance."""

    def __init__(self, forward: Callable[[], Any]):
        self._forward = forward
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._wanted = True
        self.at: tuple[str, int] | None = None
        self.brought: Any = None
        self.error: BaseException | None = None
        self._calls: dict[str, int] = {}

    def start(self) -> int | None:
        self._thread.start()
        return self._thread.ident

    def resume(self) -> None:
        """Go on to the next station, or to the end."""
        self.at, self.brought = None, None
        self._go.release()
        self._stopped.acquire()

    def leave(self) -> None:
        """End the thread, wherever it waits."""
        self._wanted = False
        while self._thread.is_alive():
            self._go.release()
            self._thread.join(0.01)

    def arrive(self, station: str, brought: Any) -> None:
        """Called on the thread: hand over and wait."""
        self._calls[station] = self._calls.get(station, 0) + 1
        self.at, self.brought = (station, self._calls[station]), brought
        self._stopped.release()
        self._go.acquire()
        if not self._wanted:
            raise _Leave

    def _main(self) -> None:
        self._go.acquire()
        try:
            if self._wanted:
                with torch.no_grad():  # a mode of the thread
                    self._forward()
        except _Leave:
            pass
        except BaseException as error:  # raised again where all come together
            self.error = error
        finally:
            self.at = None
            self._stopped.release()


def in_step(forwards: Sequence[Callable[[], Any]], stations: Sequence[Mapping[str, nn.Module]], stop: Stop) -> None:
    """Run all ``forwards``; whenever they have all come to a station, call ``stop``.

    Args:
        forwards: each runs a model once. They take turns, in this order, on threads of their own.
        stations: per model, its modules by the name of the station: those of one name stand for one another.
        stop: may change the modules. It is given the first argument that each run's module is called with.

    Raises:
        BadInput: the runs do not come to the same stations in the same order.
        Exception: whatever a forward or ``stop`` raised; the other forwards are left.
    """
    runs = [_Run(forward) for forward in forwards]
    known: dict[Hashable, _Run] = {}

    def hook(name: str) -> Callable[..., None]:
        def wait(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            run = known.get(threading.get_ident())
            if run is not None:
                run.arrive(name, next(iter((*args, *kwargs.values()))))

        return wait

    with ExitStack() as stack:
        for modules in stations:
            for name, module in modules.items():
                stack.callback(module.register_forward_pre_hook(hook(name), with_kwargs=True).remove)
        for run in runs:
            stack.callback(run.leave)
            known[run.start()] = run
        while (station := _advance(runs)) is not None:
            stop(station, [run.brought for run in runs])


def _advance(runs: Sequence[_Run]) -> str | None:
    """Let every run go on to its next station, which must be the same; None where all have ended."""
    for run in runs:
        run.resume()
        if run.error is not None:
            raise run.error
    places = {run.at for run in runs}
    if len(places) > 1:
        names = sorted("its end" if place is None else repr(place[0]) for place in places)
        raise BadInput(f"the calibration batches do not run the same layers in the same order: one is at {names[0]} while "
                       f"another is at {names[1]}; give batches that do")  # fmt: skip
    place = places.pop()
    return None if place is None else place[0]
