"""One run from the inside: the training it consists of, and what a protocol can use to make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateurs.comparing.running.artefacts import Artefacts
from secateurs.comparing.running.data import Split
from secateurs.comparing.running.masking import amount_of, ramped
from secateurs.comparing.running.randomness import batch_at, mixed, own_randomness, seed_all, step_seed
from secateurs.comparing.running.task import Ready
from secateurs.comparing.running.training import Session
from secateurs.comparing.spec import Optimizer, Run
from secateurs.core.allocation import Borrowed, Ecoflap, find_allocation
from secateurs.core.criteria import find_criterion
from secateurs.core.masks import Masks
from secateurs.errors import BadInput
from secateurs.planning import Plan
from secateurs.recipe import Recipe
from secateurs.registry import find_method
from secateurs.train import Held, prune

__all__ = ["Cell", "Stage"]

ANOTHER, CALIBRATION, BESIDE = 11, 13, 14  # purposes of randomness, so that none repeats another's draws


class Pruning(Session, Protocol):
    """A session as a run ends it and tells of it: :class:`secateurs.train.Held`, :class:`secateurs.Pruner` and their like."""

    def finish(self) -> nn.Module:
        """Leave nothing behind; the plain model."""

    def plan(self) -> Plan:
        """What has been removed."""

    @property
    def masks(self) -> Masks:
        """By name, True = kept."""

    @property
    def average_density(self) -> float:
        """Mean share of the selected weights in use over the steps."""


@dataclass
class Stage:
    """The training that a run consists of."""

    model: nn.Module
    steps: int
    settings: Optimizer
    first: int = 0
    """Steps the model had before."""
    session: Pruning | None = None
    start: float | None = None
    """The metric of the dense model that was begun with."""
    before: float | None = None
    """The metric straight after pruning in one shot."""
    width: float | None = None
    into: int = 0
    """Steps of the learning rate's course that lie before this stage: it goes on there."""
    rounds: list[dict[str, Any]] | None = None
    """What every round came to, of a run in rounds."""


@dataclass(frozen=True)
class Cell:
    """What a protocol can use."""

    run: Run
    ready: Ready
    artefacts: Artefacts

    @property
    def from_random(self) -> Optimizer:
        """How a model is trained from random weights."""
        dense = self.run.task.dense
        return (dense.optimizer if dense else None) or self.run.task.optimizer

    def beginning(self) -> Stage:
        """The dense model the run begins with, for the task's own steps; random weights where nothing was trained before."""
        task = self.run.task
        model = self.ready.fresh(self.run.seed)
        if not self.run.needs:
            return Stage(model, task.steps, task.optimizer, width=task.width)
        start = self.artefacts.load_weights(model, self.run.needs[0])
        assert task.dense is not None  # a start is needed only where there is one
        return Stage(model, task.steps, task.optimizer, task.dense.steps, start=start, width=task.width)

    def masks(self) -> Plan:
        """The masks of the run this one takes them from."""
        if not self.run.needs:
            raise BadInput(f"run {self.run.name!r}: protocol {self.run.arm.protocol!r} takes the masks of another arm: say of:")
        return self.artefacts.load_masks(self.run.needs[-1])

    def under(self, plan: Plan, model: nn.Module, steps: int | None = None) -> Stage:
        """``model`` trained under the masks of ``plan`` as from random weights, for the whole budget of steps if None."""
        held = Held(model, plan)
        plan.replay(model, undoable=False)
        return Stage(model, self.run.task.budget if steps is None else steps, self.from_random, session=held,
                     width=self.run.task.width)  # fmt: skip

    def another(self) -> nn.Module:
        """A model with weights of another seed than the start's."""
        return self.ready.fresh(mixed(self.run.seed, 0, ANOTHER))

    def settings(self, round_: int = 1, rounds: int = 1) -> dict[str, Any]:
        """The pruning recipe's fields: the task's selection, the arm's own, the point's amount and the seed."""
        said = {**self.run.task.selection, **self.run.arm.settings, "seed": self.run.seed}
        said.setdefault("method", "magnitude")
        said |= {key: ramped(share, round_, rounds) for key, share in amount_of(self.run.point).items()}
        if said.get("overrides"):
            said["overrides"] = {key: ramped(share, round_, rounds) for key, share in said["overrides"].items()}
        return said

    def calibration(self, round_: int = 1) -> list[Any] | None:
        """Training batches for gradients, the same for all methods of a seed; None where the training data is no split."""
        split, task = self.ready.data["train"], self.run.task
        if not isinstance(split, Split):
            return None
        seed = mixed(self.run.seed, round_, CALIBRATION)
        return [split.batch(batch_at(len(split), task.batch, seed, i)) for i in range(task.calibration)]

    def batch_beside(self, number: int) -> Any:
        """A training batch for a method that takes some beside those of the training loop: as these are, but other draws.

        Raises:
            BadInput: the training data is no split.
        """
        split, task = self.ready.data["train"], self.run.task
        if not isinstance(split, Split):
            raise BadInput(f"task {task.name!r}: method {self.settings()['method']!r} takes batches beside those of the "
                           f"training loop, and data['train'], a {type(split).__name__}, is no split to take them "
                           "from")  # fmt: skip
        seed = mixed(self.run.seed, 0, BESIDE)
        batch = split.batch(batch_at(len(split), task.batch, seed, number))
        if self.ready.transform is None:
            return batch
        with own_randomness():
            seed_all(step_seed(seed, number))
            return self.ready.transform(batch)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The task's, in the precision it trains in."""
        with torch.autocast(self.ready.device.type, torch.bfloat16, enabled=self.run.task.autocast):
            return self.ready.loss(model, batch)

    def prune_now(self, model: nn.Module, round_: int = 1, rounds: int = 1) -> Plan:
        """Prune ``model`` in place; gradients are of the task's loss in evaluation mode, without augmentation."""
        recipe = Recipe.from_dict(self.settings(round_, rounds))
        training, needed = model.training, _needs_data(recipe)
        batches = self.calibration(round_) if needed else None
        plan = prune(model.eval(), recipe, calibration=batches, loss=self.ready.loss, inplace=True).plan
        model.train(training)
        return plan


def _needs_data(recipe: Recipe) -> bool:
    method = find_method(recipe.method)(recipe.options)
    settled = recipe.with_defaults(method.defaults)
    criterion = find_criterion(settled.criterion or "magnitude")
    allocation = find_allocation(settled.allocation or "uniform", **settled.allocation_options)
    measured = bool(criterion.needs - {"noise"}) or isinstance(allocation, (Borrowed, Ecoflap))
    return "calibration" in method.needs or measured
