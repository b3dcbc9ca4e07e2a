"""One stage of training that can be killed at any step and goes on to the same bits: what a task's own ``train`` is given."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateurs.comparing.running.optimizers import make_optimizer, rate_at
from secateurs.comparing.running.randomness import seed_all, step_seed
from secateurs.comparing.spec import Optimizer
from secateurs.errors import BadInput, CorruptFile, NotFinite
from secateurs.files import write_whole
from secateurs.measure.mode import to_device

__all__ = ["Session", "Training"]

SAVE_SECONDS = 10.0  # between checkpoints, ...
SAVE_SHARE = 0.01  # ... or more, where writing them would take more than this share of the time
POINTS = 20  # of the history, where the task evaluates nothing on the way


class Session(Protocol):
    """What prunes, or holds masks, while a model trains: :class:`secateurs.Pruner`, :class:`secateurs.train.Held`."""

    def attach(self, optimizer: torch.optim.Optimizer) -> Any:
        """Act after every step of ``optimizer``."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""


@dataclass
class Training:
    """A model, data, and steps to be taken.

    A task's own ``train(training)`` has this form; everything random in a step may come from torch's, numpy's or Python's
    global generators, which are seeded anew for every step:

    >>> def train(training):  # doctest: +SKIP
    ...     optimizer = training.make_optimizer()
    ...     state = training.start(optimizer, carry=training.model.first_state())
    ...     for step in training.remaining():
    ...         loss, state = ...                        # the batch of ``step``, a pure function of (training.seed, step)
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         training.clip()
    ...         optimizer.step()
    ...         training.done(step, loss, carry=state)

    The learning rate of every step is set by :meth:`remaining`, as the settings say, in proportion to the one each of the
    optimizer's groups began with. Pruning happens inside ``optimizer.step()``.

    Steps are numbered from the model's random beginning: a run that goes on with a dense model of 3000 steps has the steps
    3000, 3001, ..., and so goes on with the data where the dense training stopped.
    """

    model: nn.Module
    data: Mapping[str, Any]
    steps: int
    seed: int
    batch: int
    settings: Optimizer
    autocast: bool = False
    """Whether the task wants matrix products in bfloat16: ``torch.autocast(..., enabled=training.autocast)``."""
    first: int = 0
    into: int = 0
    """Steps of the learning rate's course that lie before ``first``."""
    name: str = ""
    session: Session | None = None
    checkpoint: Path | None = None
    tell: Callable[[str, int, int], None] = lambda name, step, steps: None
    evaluate: Callable[[nn.Module], float] | None = None
    """The metric on the validation split, for the history."""
    evaluate_every: int | None = None
    validation_loss: Callable[[nn.Module], float | None] | None = None
    """The mean loss on the validation split, for the history beside the metric."""
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    """Spent on training so far, evaluations and checkpoints left out."""
    evaluation_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._step = 0  # of this stage, taken
        self._losses: list[float] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._rates: list[float] = []
        self._carry: Any = None
        self._calls = self._all_calls = 0  # of optimizer.step(), since the last done() and altogether
        self._clock = self._saved_at = time.perf_counter()
        self._patience = SAVE_SECONDS

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the settings, over all parameters that want a gradient."""
        return make_optimizer(self.model, self.settings)

    def start(self, optimizer: torch.optim.Optimizer, carry: Any = None) -> Any:
        """Begin, or go on from the checkpoint of a killed run; returns what to carry into the next step.

        ``carry`` is what passes from step to step beside the weights (a recurrent state): tensors in tuples, lists or dicts.

        Raises:
            BadInput: training was started before, or pruning cannot be attached to ``optimizer``.
        """
        if self._optimizer is not None:
            raise BadInput(f"run {self.name!r}: start() was called twice")
        self._optimizer, self._carry = optimizer, carry
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        if self.session is not None:
            self.session.attach(optimizer)
        optimizer.register_step_post_hook(self._called)
        if self.checkpoint is not None and self.checkpoint.is_file():
            self._load(self.checkpoint)
        self._clock = time.perf_counter()
        return self._carry

    def remaining(self) -> Iterator[int]:
        """The steps still to be taken; before each the generators are seeded and the learning rate is set."""
        if self._optimizer is None:
            raise BadInput(f"run {self.name!r}: call start(optimizer) before remaining()")
        self.model.train()
        while self._step < self.steps:
            step = self._step
            seed_all(step_seed(self.seed, self.first + step))
            for group, lr in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate_at(lr, self.settings, self.into + step, self.into + self.steps)
            yield self.first + step
            if self._step != step + 1:
                raise BadInput(f"run {self.name!r}: call done() once for every step that remaining() gives; at step "
                               f"{self.first + step} it was not")  # fmt: skip

    def clip(self) -> None:
        """Limit the norm of the gradient where the settings say so; between ``backward()`` and ``step()``."""
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)

    def done(self, step: int, loss: Tensor | float, carry: Any = None) -> None:
        """Say that ``step`` has been taken, with the loss of its batch and what to carry into the next.

        Raises:
            BadInput: it is not the step that was due, or the optimizer took more than one.
            NotFinite: the loss is NaN or infinite.
        """
        if step != self.first + self._step or self._step >= self.steps:
            raise BadInput(f"run {self.name!r}: done({step}) where step {self.first + self._step} was due")
        if self._calls > 1:
            raise BadInput(f"run {self.name!r}: optimizer.step() was called {self._calls} times in step {step}; the budget "
                           "is counted in optimizer steps, so call it once")  # fmt: skip
        value = float(loss.detach() if isinstance(loss, Tensor) else loss)
        if not math.isfinite(value):
            raise NotFinite(f"run {self.name!r}: the loss is {value} at step {step}; a lower learning rate or clip: may help")
        self._losses.append(value)
        self._carry, self._all_calls, self._step = carry, self._all_calls + self._calls, self._step + 1
        self._calls = 0
        self._note()
        self._save_in_time()
        self.tell(self.name, self._step, self.steps)

    def finish(self) -> None:
        """Check that all steps were taken.

        Raises:
            BadInput: they were not: the training function returned too early, or never started.
        """
        if self._step < self.steps or (self.steps and self._optimizer is None):
            raise BadInput(f"run {self.name!r}: the training function returned after {self._step} of {self.steps} steps; loop "
                           "over training.remaining() and call training.done() for each")  # fmt: skip
        if self.steps and not self._all_calls:
            raise BadInput(f"run {self.name!r}: the optimizer given to start() never took a step; train with that one")

    # -- what happens at a step ---------------------------------------------------------------------------------------

    def _called(self, *_: Any) -> None:
        self._calls += 1

    def _note(self) -> None:
        """Add to the history where it is due: the mean loss since the last entry, and the metric."""
        every = self.evaluate_every or max(1, self.steps // POINTS)
        if self._step % every and self._step != self.steps:
            return
        self._stop_clock()
        value = self.evaluate(self.model) if self.evaluate and self.evaluate_every else None
        loss = math.fsum(self._losses) / len(self._losses)
        entry = {"step": self._step, "loss": loss, "value": value}
        if self.evaluate_every and self.validation_loss:
            entry["validation_loss"] = self.validation_loss(self.model)
        self.history.append(entry)
        self._losses = []
        self.evaluation_seconds += time.perf_counter() - self._clock
        self._clock = time.perf_counter()

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def _save_in_time(self) -> None:
        if self.checkpoint is None or self._step == self.steps:
            return
        now = time.perf_counter()
        if now - self._saved_at < self._patience:
            return
        self._stop_clock()
        self._save(self.checkpoint)
        self._clock = self._saved_at = time.perf_counter()
        self._patience = max(SAVE_SECONDS, (self._saved_at - now) / SAVE_SHARE)

    def _save(self, path: Path) -> None:
        assert self._optimizer is not None
        state = {"step": self._step, "losses": self._losses, "history": self.history, "carry": self._carry,
                 "seconds": [self.seconds, self.evaluation_seconds], "model": self.model.state_dict(),
                 "optimizer": self._optimizer.state_dict(),
                 "session": None if self.session is None else self.session.state_dict()}  # fmt: skip
        stream = io.BytesIO()
        torch.save(state, stream)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, stream.getvalue())

    def _load(self, path: Path) -> None:
        assert self._optimizer is not None
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise CorruptFile(f"the checkpoint {str(path)!r} cannot be read ({type(error).__name__}); delete it, and the run "
                              "begins again") from error  # fmt: skip
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.session is not None:
            self.session.load_state_dict(state["session"])
        self._step, self._losses, self.history[:] = state["step"], state["losses"], state["history"]
        self._carry = to_device(state["carry"], device)
        self.seconds, self.evaluation_seconds = state["seconds"]
