"""A task's functions, found and checked: fresh models, data, loss, metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.comparing.metrics import METRICS, TOGETHER
from secateurs.comparing.running.data import Split, shares_examples, split_of, wrap
from secateurs.comparing.running.loop import cross_entropy
from secateurs.comparing.running.randomness import seed_all
from secateurs.comparing.spec import Named, Task, plain
from secateurs.errors import BadInput, NotFinite
from secateurs.measure.mode import evaluating
from secateurs.usercode import find, source_hash

__all__ = ["Ready", "ready"]


@dataclass(frozen=True)
class Ready:
    """A task whose functions have been found. Nothing of the user's is called before it is needed."""

    task: Task
    factory: Callable[..., nn.Module]
    source: Callable[..., Any]
    device: torch.device
    loss: Callable[[nn.Module, Any], Tensor]
    metric: Callable[[nn.Module, Any], Any]
    train: Callable[..., Any] | None
    """The user's own training function, or None for the built-in loop."""
    transform: Callable[[Any], Any] | None
    direction: str
    percent: bool
    code: Mapping[str, str]
    """By the name of the task's field, the hash of the source file of the user's function, and of the stored dense model."""

    @cached_property
    def data(self) -> dict[str, Any]:
        """The task's splits, loaded once for all runs that follow each other in a process."""
        return _loaded(self.source, _Options.of(self.task.data_options), self.task.name, self.device)

    @cached_property
    def tests_on_training_data(self) -> bool:
        """Whether what the metric is taken on is training data."""
        options = _Options.of(self.task.data_options)
        return _shared(self.source, options, self.task.name, self.device, self.task.evaluate_on)

    def fresh(self, seed: int, width: float | None = None) -> nn.Module:
        """The model with the weights of ``seed``, at ``width`` or else the task's own, on the device.

        Raises:
            BadInput: the factory fails, returns no module, or is not deterministic.
        """
        width = self.task.width if width is None else width
        options = _Options.of(self.task.model_options)
        _check_repeatable(self.factory, options, width, self.task.name)
        return _build(self.factory, options, width, self.task.name, seed).to(self.device)

    def evaluate(self, model: nn.Module, split: str | None = None) -> float:
        """The metric of ``model`` on ``split`` (the task's own if None), in evaluation mode without gradients.

        Raises:
            BadInput: no such split, or the metric gives no number.
            NotFinite: it gives NaN or an infinity.
        """
        name = split or self.task.evaluate_on
        with evaluating(model):
            found = self.metric(model, split_of(self.data, name, self.task.name))
        said = f"metric {self.metric_name!r} of task {self.task.name!r} on {name!r}"
        try:
            value = float(found)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"{said} gave {found!r}, which is no number") from error
        if not torch.isfinite(torch.tensor(value, dtype=torch.float64)):
            raise NotFinite(f"{said} gave {value}")
        return value

    def validation_loss(self, model: nn.Module) -> float | None:
        """The mean loss of ``model`` over the validation examples, in evaluation mode; None where they are no split."""
        split = self.data.get("validation")
        if not isinstance(split, Split) or self.train is not None:
            return None
        total = 0.0
        with evaluating(model):
            for at in range(0, len(split), TOGETHER):
                index = torch.arange(at, min(at + TOGETHER, len(split)))
                total += float(self.loss(model, split.batch(index))) * len(index)
        return total / len(split)

    @property
    def metric_name(self) -> str:
        """As the task names it."""
        return plain(self.task.metric)


def ready(task: Task, device: torch.device | str = "cpu") -> Ready:
    """Find the functions of ``task``.

    Raises:
        BadInput: one cannot be found, or a metric of one's own lacks a direction.
    """
    own = [key for key in ("model", "data", "loss", "metric", "train", "transform") if _is_own(task, key)]
    functions = {key: _found(task, key) for key in own}
    known = None if "metric" in functions else METRICS[str(task.metric)]
    if known is None and task.direction not in ("higher", "lower"):
        raise BadInput(f"task {task.name!r}: metric {plain(task.metric)!r} is your own, so say direction: higher or lower")
    return Ready(
        task=task,
        factory=functions["model"],
        source=functions["data"],
        device=torch.device(device),
        loss=functions.get("loss", cross_entropy),
        metric=functions["metric"] if known is None else known.measure,
        train=functions.get("train"),
        transform=functions.get("transform"),
        direction=str(task.direction) if known is None else known.direction,
        percent=False if known is None else known.percent,
        code={**{key: source_hash(function) for key, function in functions.items()}, **_checkpoint(task)},
    )


def _checkpoint(task: Task) -> dict[str, str]:
    path = Path(task.dense.checkpoint) if task.dense and task.dense.checkpoint else None
    if path is None or not path.is_file():  # its absence is told where it is read
        return {}
    return {"checkpoint": _file_hash(path, path.stat().st_mtime_ns)}


@lru_cache(maxsize=8)
def _file_hash(path: Path, changed: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:10]


BUILT_IN = {"loss": ("cross-entropy",), "train": ("built-in",), "metric": METRICS}


def _is_own(task: Task, key: str) -> bool:
    named: Named | None = getattr(task, key)
    return named is not None and not (isinstance(named, str) and named in BUILT_IN.get(key, ()))


def _found(task: Task, key: str) -> Callable[..., Any]:
    named: Named = getattr(task, key)
    return find(named, f"task {task.name!r}: {key}") if isinstance(named, str) else named


@dataclass(frozen=True)
class _Options:
    """Keyword arguments that can be part of a cache's key."""

    said: str
    values: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _Options:
        return cls(json.dumps(plain(options), sort_keys=True, default=repr), dict(options))


@lru_cache(maxsize=2)
def _loaded(function: Callable[..., Any], options: _Options, task: str, device: torch.device) -> dict[str, Any]:
    return wrap(function(**options.values), task, device)


@lru_cache(maxsize=8)
def _shared(function: Callable[..., Any], options: _Options, task: str, device: torch.device, split: str) -> bool:
    data = _loaded(function, options, task, device)
    return shares_examples(data["train"], split_of(data, split, task))


def _build(factory: Callable[..., Any], options: _Options, width: float | None, task: str, seed: int) -> nn.Module:
    said = {**options.values, **({} if width is None else {"width": width})}
    seed_all(seed)
    try:
        model = factory(**said)
    except Exception as error:
        call = ", ".join(f"{key}={value!r}" for key, value in said.items())
        raise BadInput(f"task {task!r}: model {plain(factory)!r} called with ({call}) failed: "
                       f"{type(error).__name__}: {error}") from error  # fmt: skip
    if not isinstance(model, nn.Module):
        raise BadInput(f"task {task!r}: model {plain(factory)!r} returned a {type(model).__name__}; it must return a "
                       "torch.nn.Module")  # fmt: skip
    return model


@lru_cache(maxsize=64)
def _check_repeatable(factory: Callable[..., Any], options: _Options, width: float | None, task: str) -> None:
    """Two models of one seed must be the same to the bit: a run that is resumed or repeated begins with them."""
    first, second = (_build(factory, options, width, task, 0).state_dict() for _ in range(2))
    for name in {**first, **second}:
        if name not in first or name not in second or not _same(first[name], second[name]):
            raise BadInput(f"task {task!r}: model {plain(factory)!r} is not deterministic: built twice after the same seed, "
                           f"{name!r} differs; draw all initial values from torch's global generator")  # fmt: skip


def _same(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return bool(a == b)
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
