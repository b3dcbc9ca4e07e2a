"""Where training can be taken back to: model, optimizer, schedule, data order and random state of a step."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.models import unwrap
from secateurs.train.guard import innermost

__all__ = ["Snapshot", "Snapshots"]

_PARTS = ("step", "model", "optimizer", "schedule", "data", "random")


@dataclass(frozen=True)
class Snapshot:
    """The state of a training after ``step`` optimizer steps.

    Attributes:
        step: how many had been taken.
        model: parameters and buffers by name: clones.
        optimizer: its state dict; None at step 0, where there is none yet.
        schedule: the learning-rate schedule's state dict, one that has been advanced for this step, where one was given.
        data: the state dict of what deals out the data (or of a ``torch.Generator``), where it was given.
        random: of torch's, numpy's and Python's global generators.
    """

    step: int
    model: dict[str, Tensor] = field(repr=False)
    optimizer: dict[str, Any] | None = field(default=None, repr=False)
    schedule: dict[str, Any] | None = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)
    random: dict[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def take(cls, step: int, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, schedule: Any = None,
             data: Any = None) -> Snapshot:  # fmt: skip
        """The state of this moment, in clones that training does not change."""
        return cls(step, _cloned(unwrap(model).state_dict()), None if optimizer is None else _cloned(optimizer.state_dict()),
                   _state_of(schedule), _state_of(data), _random_state())  # fmt: skip

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, schedule: Any = None,
                data: Any = None, randomness: bool = False) -> None:  # fmt: skip
        """Set everything that is given back to what it was; ``randomness`` also the global generators.

        Raises:
            BadInput: the model has other tensors, or something is given of which no state was kept. Nothing is changed then.
        """
        own = {name: value for name, value in unwrap(model).state_dict().items() if isinstance(value, Tensor)}
        odd = [n for n in {**own, **self.model} if n not in own or n not in self.model or own[n].shape != self.model[n].shape]
        if odd:
            raise BadInput(f"the snapshot of step {self.step} is of another model: {odd[0]!r} is not in both with one shape")
        for what, target, state in (("optimizer", optimizer, self.optimizer), ("schedule", schedule, self.schedule),
                                    ("data", data, self.data)):  # fmt: skip
            if target is not None and state is None:
                raise BadInput(f"the snapshot of step {self.step} has no state of the {what}: give {what}= when it is taken")
        unwrap(model).load_state_dict(self.model, strict=False)
        self.restore_course(optimizer, schedule, data, randomness)

    def restore_course(self, optimizer: torch.optim.Optimizer | None = None, schedule: Any = None, data: Any = None,
                       randomness: bool = False) -> None:  # fmt: skip
        """The same without the model: what training goes on with."""
        if optimizer is not None and self.optimizer is not None:
            optimizer.load_state_dict(_cloned(self.optimizer))
        for target, state in ((schedule, self.schedule), (data, self.data)):
            if target is not None and state is not None:
                _set_state(target, _cloned(state))
        if randomness and self.random is not None:
            _set_random_state(self.random)

    def state_dict(self) -> dict[str, Any]:
        """As plain data and tensors: loads with ``weights_only=True``."""
        return {part: getattr(self, part) for part in _PARTS}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Snapshot:
        """The snapshot of :meth:`state_dict`.

        Raises:
            BadInput: it is none.
        """
        if not isinstance(state, Mapping) or set(state) != set(_PARTS):
            raise BadInput(f"this is no snapshot's state: it has {', '.join(map(str, state))}, not {', '.join(_PARTS)}")
        return cls(**state)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; what is no tensor stands in it as JSON.

        Raises:
            BadInput: a schedule or the data order keeps something that is neither a tensor nor plain data.
        """
        tensors: dict[str, Tensor] = {}
        skeleton = json.dumps(_without_tensors(self.state_dict(), tensors))
        content = require("safetensors.torch", "files").save(tensors, {"snapshot": skeleton})
        write_whole(path, content)

    @classmethod
    def load(cls, path: str | Path) -> Snapshot:
        """Read what :meth:`save` wrote.

        Raises:
            BadInput: there is no such file.
            CorruptFile: it is no whole snapshot.
        """
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"there is no snapshot {str(path)!r}")
        safetensors: Any = require("safetensors", "files")
        try:
            with safetensors.safe_open(path, "pt") as file:
                skeleton = json.loads(file.metadata()["snapshot"])
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            return cls.from_state_dict(_with_tensors(skeleton, tensors))
        except (safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
            raise CorruptFile(f"{str(path)!r} is no whole snapshot: {error}") from error


class Snapshots(Mapping[int, Snapshot]):
    """Snapshots of chosen steps of a training, taken as it runs.

    >>> store = Snapshots(model, [0, 100, 500]).attach(optimizer, schedule)  # doctest: +SKIP
    >>> ...                                                  # any training loop  # doctest: +SKIP
    >>> store[100].restore(model)                            # doctest: +SKIP

    That of step k is taken when the k-th ``optimizer.step()`` is over; the schedule's part and the learning rates when the
    model is next called in training mode, because schedules are advanced after the optimizer.
    """

    def __init__(self, model: nn.Module, steps: Iterable[int]):
        self._model = unwrap(model)
        self._found: dict[int, Snapshot] = {}
        self._wanted = set(steps)
        self._handles: list[Any] = []
        self._waiting: tuple[int, torch.optim.Optimizer, Any] | None = None
        if 0 in self._wanted:
            self._found[0] = Snapshot.take(0, self._model)

    def attach(self, optimizer: torch.optim.Optimizer, schedule: Any = None, data: Any = None,
               done: int | Callable[[], int] = 0) -> Snapshots:  # fmt: skip
        """Watch ``optimizer``, which has taken ``done`` steps before; or ``done()`` says how many it has taken."""
        optimizer, counted = innermost(optimizer), itertools.count(done + 1 if isinstance(done, int) else 0)

        def after(*_: Any) -> None:
            step = done() if callable(done) else next(counted)
            if step in self._wanted and step not in self._found:
                self._found[step] = Snapshot.take(step, self._model, optimizer, schedule, data)
                self._waiting = (step, optimizer, schedule)

        self.detach()
        self._handles = [optimizer.register_step_post_hook(after), self._model.register_forward_pre_hook(self._settle)]
        return self

    def detach(self) -> None:
        """Watch no longer."""
        self._settle(None, None)
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _settle(self, module: nn.Module | None, _: Any) -> None:
        """Take the schedule's state and the learning rates it has set anew, now that it has been advanced."""
        if self._waiting is not None and (module is None or module.training):
            step, optimizer, schedule = self._waiting
            groups = _cloned(optimizer.state_dict()["param_groups"])
            found = self._found[step]
            self._found[step] = replace(found, schedule=_state_of(schedule),
                                        optimizer={**(found.optimizer or {}), "param_groups": groups})  # fmt: skip
            self._waiting = None

    def __getitem__(self, step: int) -> Snapshot:
        return self._found[step]

    def __iter__(self) -> Iterator[int]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, snapshot: Snapshot) -> None:
        """Take over a snapshot from elsewhere, in the place of one of its step."""
        self._found[snapshot.step] = snapshot

    def state_dict(self) -> dict[str, Any]:
        """All snapshots: loads with ``weights_only=True``."""
        self._settle(None, None)
        return {str(step): snapshot.state_dict() for step, snapshot in self._found.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back :meth:`state_dict`."""
        self._found = {int(step): Snapshot.from_state_dict(one) for step, one in state.items()}


def _cloned(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _cloned(value) for key, value in state.items()}
    return type(state)(map(_cloned, state)) if type(state) in (list, tuple) else state


def _state_of(part: Any) -> Any:
    if part is None:
        return None
    return part.get_state().clone() if isinstance(part, torch.Generator) else _cloned(part.state_dict())


def _set_state(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    else:
        part.load_state_dict(state)


def _random_state() -> dict[str, Any]:
    kind, keys, at, has, cached = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    cuda = list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else []
    numbers = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": [version, list(words), gauss],
            "numpy": [str(kind), numbers, int(at), int(has), float(cached)]}  # fmt: skip


def _set_random_state(state: Mapping[str, Any]) -> None:
    kind, keys, *rest = state["numpy"]
    version, words, gauss = state["python"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON can hold it; tensors go into ``tensors`` and leave their name."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _without_tensors(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_without_tensors(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BadInput(f"a snapshot holds tensors and plain data, and this state has a {type(value).__name__}: {value!r}")


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, held), *_ = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "items":
        return {key: _with_tensors(item, tensors) for key, item in held}
    return {"list": list, "tuple": tuple}[kind](_with_tensors(item, tensors) for item in held)
