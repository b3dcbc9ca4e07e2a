"""What a layer costs in time at other widths, measured on this machine and remembered while the process runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from secateurs.errors import BadInput
from secateurs.measure.latency import compare_latency

__all__ = ["ROUNDINGS", "Call", "Shaped", "TimeTable", "best_rounding"]

#: Multiples that widths may be rounded to.
ROUNDINGS = (1, 4, 8, 16, 32)


@dataclass(frozen=True)
class Shaped:
    """A tensor argument by its shape and dtype; its values do not matter for the time."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def make(self, device: torch.device) -> Tensor:
        """Such a tensor: small positive numbers, or zeros of an integer dtype."""
        if self.dtype.is_floating_point:
            return torch.full(self.shape, 0.01, dtype=self.dtype, device=device)
        return torch.zeros(self.shape, dtype=self.dtype, device=device)


@dataclass(frozen=True)
class Call:
    """An operator and its arguments, with every tensor given as :class:`Shaped`; lists as tuples."""

    operator: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...] = ()

    def on(self, device: torch.device) -> Callable[[], Any]:
        """The call with real tensors, made once."""
        arguments = [_made(value, device) for value in self.arguments]
        named = {name: _made(value, device) for name, value in self.named}
        return lambda: self.operator(*arguments, **named)


def _made(value: Any, device: torch.device) -> Any:
    if isinstance(value, Shaped):
        return value.make(device)
    return [_made(item, device) for item in value] if isinstance(value, tuple) else value


@dataclass
class TimeTable:
    """Seconds of single calls, each measured when it is first asked for.

    Attributes:
        device: where the calls run.
        repeats: timed runs of a call; the median is taken.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    repeats: int = 7
    _known: dict[tuple[Call, int], float] = field(default_factory=dict, repr=False)

    def seconds(self, call: Call) -> float:
        """The median time of ``call``, with as many threads as torch has now.

        Raises:
            BadInput: it cannot be run at these shapes.
        """
        key = (call, torch.get_num_threads())
        if key not in self._known:
            self._known[key] = self._measure(call)
        return self._known[key]

    def _measure(self, call: Call) -> float:
        with torch.no_grad():
            try:
                run = call.on(self.device)
                run()
            except (RuntimeError, TypeError, ValueError) as error:
                raise BadInput(f"the time of {call.operator} cannot be measured at {call.arguments}: {error}") from error
            timed = compare_latency({"it": run}, repeats=self.repeats, warmup=2, device=self.device)["it"]
        return statistics.median(timed.runs)


def best_rounding(per_width: Sequence[tuple[int, float]], tolerance: float = 0.05) -> int:
    """The smallest multiple worth rounding to, from (width, seconds) of widths that are multiples of various numbers.

    A width is judged by its seconds per channel. The answer is the smallest of :data:`ROUNDINGS` that the widths show which is
    at most ``tolerance`` above the best.

    Raises:
        BadInput: no width.
    """
    if not per_width:
        raise BadInput("no width was timed")
    cost: dict[int, list[float]] = {}
    for width, seconds in per_width:
        multiple = max(m for m in ROUNDINGS if width % m == 0)
        cost.setdefault(multiple, []).append(seconds / width)
    median = {multiple: statistics.median(each) for multiple, each in cost.items()}
    best = min(median.values())
    return min(multiple for multiple, each in median.items() if each <= best * (1 + tolerance))
