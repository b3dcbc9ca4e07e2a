"""The protocols: with what weights a run begins, under which masks, for how many steps, with which optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from secateurs.comparing.gradual import while_training
from secateurs.comparing.running.artefacts import fill
from secateurs.comparing.running.cell import ANOTHER, Cell, Stage
from secateurs.comparing.running.costs import masked_work, rival_width
from secateurs.comparing.running.masking import Rounds, draw_to_fit, shuffled
from secateurs.comparing.running.randomness import mixed
from secateurs.comparing.running.tickets import tickets
from secateurs.comparing.spec import Retrain
from secateurs.errors import BadInput, near
from secateurs.planning import Plan
from secateurs.recipe import Recipe
from secateurs.registry import find_method
from secateurs.train import Held, Pruner
from secateurs.train.retraining import Retraining

__all__ = ["STAGES", "stage_of"]

SHUFFLED = 12  # a purpose of randomness, as in the cell


def _start(cell: Cell) -> Stage:
    task = cell.run.task
    if task.dense is None:
        raise BadInput(f"task {task.name!r}: a start is the dense training, and the task has no dense:")
    model = cell.ready.fresh(cell.run.seed)
    if task.dense.checkpoint is None:
        return Stage(model, task.dense.steps, cell.from_random, width=task.width)
    fill(model, task.dense.checkpoint, f"task {task.name!r}: dense.checkpoint")
    return Stage(model, 0, cell.from_random, task.dense.steps, width=task.width)


def _dense(cell: Cell) -> Stage:
    return cell.beginning()


def _small_dense(cell: Cell) -> Stage:
    width = rival_width(cell.ready, cell.run.point)
    return Stage(cell.ready.fresh(cell.run.seed, width), cell.run.task.budget, cell.from_random, width=width)


def _prune(cell: Cell) -> Stage:
    stage, retrain = cell.beginning(), cell.run.arm.retrain
    recipe = Recipe.from_dict(cell.settings())
    needs = find_method(recipe.method).needs
    if while_training(cell.run.arm):
        said = {**cell.settings(), "total_steps": stage.steps}
        data = cell.batch_beside if "batches" in needs else None
        return dataclasses.replace(stage, session=Pruner(stage.model, Recipe.from_dict(said), data=data, loss=cell.loss))
    plan = cell.prune_now(stage.model)
    stage = dataclasses.replace(stage, before=cell.ready.evaluate(stage.model))
    if retrain is not None:
        return _retrained(stage, plan, retrain, cell)
    return dataclasses.replace(stage, session=Held(stage.model, plan))


def _retrained(stage: Stage, plan: Plan, said: Retrain, cell: Cell) -> Stage:
    """A part of the pruned model trains, for its own steps and with its own optimizer; nothing does for no steps."""
    steps = stage.steps if said.steps is None else said.steps
    if steps == 0:
        return dataclasses.replace(stage, steps=0, session=Held(stage.model, plan))
    session = Retraining(stage.model, plan, parts=said.parts, adapter=said.adapter, rank=said.rank, alpha=said.alpha,
                         dropout=said.dropout, seed=cell.run.seed)  # fmt: skip
    return dataclasses.replace(stage, steps=steps, settings=said.optimizer or stage.settings, session=session)


def _iterative(cell: Cell) -> Stage:
    stage, rounds = cell.beginning(), cell.run.arm.rounds
    if rounds > stage.steps:
        raise BadInput(f"arm {cell.run.arm.name!r}: {rounds} rounds do not fit into {stage.steps} steps")
    session = Rounds(stage.model, lambda round_: cell.prune_now(stage.model, round_, rounds), rounds, stage.steps)
    return dataclasses.replace(stage, session=session)


def _scratch(cell: Cell, steps: int | None = None) -> Stage:
    plan, model = cell.masks(), cell.another()
    draw_to_fit(model, plan, mixed(cell.run.seed, 1, ANOTHER))
    return cell.under(plan, model, steps)


def _scratch_b(cell: Cell) -> Stage:
    """As many steps as cost what the dense model's budget costs, counted in multiply-adds, but at most ``cap`` times that."""
    work = masked_work(cell.ready, cell.masks())
    if work is None:
        raise BadInput(f"task {cell.run.task.name!r}: scratch-b counts multiply-adds: give data['example'], a function of the "
                       "number of examples that returns the model's inputs")  # fmt: skip
    budget, (dense, own) = cell.run.task.budget, work
    return _scratch(cell, min(budget * dense // max(1, own), int(cell.run.arm.cap * budget)))


def _reinitialised(cell: Cell) -> Stage:
    return cell.under(cell.masks(), cell.another())


def _reshuffled(cell: Cell) -> Stage:
    plan = shuffled(cell.masks(), mixed(cell.run.seed, 0, SHUFFLED))
    return cell.under(plan, cell.ready.fresh(cell.run.seed))


def _rewound(cell: Cell) -> Stage:
    return cell.under(cell.masks(), cell.ready.fresh(cell.run.seed))


STAGES: Mapping[str, Callable[[Cell], Stage]] = {
    "start": _start,
    "dense": _dense,
    "small-dense": _small_dense,
    "prune": _prune,
    "iterative": _iterative,
    "tickets": tickets,
    "scratch-e": _scratch,
    "scratch-b": _scratch_b,
    "reinitialised": _reinitialised,
    "reshuffled": _reshuffled,
    "rewound": _rewound,
}


def stage_of(cell: Cell) -> Stage:
    """The training that the run's protocol asks for.

    Raises:
        BadInput: no such protocol, or it does not fit the task.
    """
    name = cell.run.arm.protocol
    if name not in STAGES:
        raise BadInput(f"protocol {name!r} is unknown; there are {', '.join(STAGES)}" + near(name, STAGES))
    return STAGES[name](cell)
