"""How long a call takes on this machine: medians and spread of repeated runs, rivals measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.measure.mode import computing_with, device_of, evaluating, to_device

__all__ = ["Latency", "calling", "compare_latency", "latency"]


@dataclass(frozen=True)
class Latency:
    """Times of single calls, in seconds."""

    runs: tuple[float, ...]
    threads: int
    device: str

    @property
    def median_s(self) -> float:
        """The median run."""
        return statistics.median(self.runs)

    @property
    def iqr_s(self) -> float:
        """The spread: third quartile less first; 0.0 for a single run."""
        if len(self.runs) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.runs, n=4, method="inclusive")
        return high - low


def latency(model: nn.Module, example: Any, *, repeats: int = 30, warmup: int = 5, threads: int | None = None) -> Latency:
    """Time ``model`` on ``example``: one tensor, a tuple of inputs, or a mapping of named inputs.

    Runs on the model's own device, in evaluation mode without gradients; the model and the thread count are left as they were.
    To compare models use :func:`compare_latency`, which exposes all of them to the same noise.
    """
    device = device_of(model)
    example = to_device(example, device)
    calls = {"model": calling(model, example)}
    with evaluating(model):
        return compare_latency(calls, repeats=repeats, warmup=warmup, threads=threads, device=device)["model"]


def compare_latency(
    calls: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 30,
    warmup: int = 5,
    threads: int | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Latency]:
    """Time several calls in turns: each round runs every call once, starting one further on each time.

    Noise and drift of the machine so fall on all alike. Nothing is done to gradients or training mode here.

    Args:
        calls: what to time, by name; each is called without arguments.
        repeats: timed runs of each.
        warmup: untimed runs of each beforehand.
        threads: intra-operation threads of torch while timing; None leaves them. The old number is restored.
        device: where the calls work; anything but the CPU is synchronised around each run.

    Raises:
        BadInput: nothing to time, no repeats, or a thread count below 1.
    """
    if not calls:
        raise BadInput("nothing to time: give at least one call")
    if repeats < 1 or warmup < 0:
        raise BadInput(f"repeats={repeats}, warmup={warmup}: give at least one repeat and no negative warm-up")
    if threads is not None and threads < 1:
        raise BadInput(f"threads={threads}: give at least 1, or None to leave torch's own number")
    names, device, runs = list(calls), torch.device(device), {name: list[float]() for name in calls}
    with nullcontext() if threads is None else computing_with(threads):
        for round_ in range(-warmup, repeats):
            first = round_ % len(names)
            for name in names[first:] + names[:first]:
                seconds = _timed(calls[name], device)
                if round_ >= 0:
                    runs[name].append(seconds)
        return {name: Latency(tuple(times), torch.get_num_threads(), str(device)) for name, times in runs.items()}


def calling(model: nn.Module, example: Any) -> Callable[[], Any]:
    """The call of ``model`` on one tensor, a tuple of inputs, or a mapping of named inputs."""
    if isinstance(example, Mapping):
        return lambda: model(**example)
    if isinstance(example, tuple):
        return lambda: model(*example)
    return lambda: model(example)


def _timed(call: Callable[[], Any], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    call()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
