"""Carry out one run, from its beginning or from where it was killed, to the same row."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateurs.comparing.recipes.grid import steps
from secateurs.comparing.running.artefacts import Artefacts
from secateurs.comparing.running.cell import Cell, Stage
from secateurs.comparing.running.loop import supervised
from secateurs.comparing.running.protocols import stage_of
from secateurs.comparing.running.randomness import own_randomness
from secateurs.comparing.running.record import done_row, failed_row
from secateurs.comparing.running.task import Ready, ready
from secateurs.comparing.running.tickets import Carried, Tickets
from secateurs.comparing.running.training import Training
from secateurs.comparing.spec import PRUNING, Run
from secateurs.errors import BadInput
from secateurs.measure.mode import computing_with

__all__ = ["Tell", "device_here", "execute", "failed", "stored", "take_steps"]

Tell = Callable[[str, int, int], None]
"""Called with the name of a run, its step and its number of steps."""

KEEPS_MASKS = PRUNING


def execute(run: Run, folder: Path, tell: Tell = lambda name, step, steps: None) -> dict[str, Any]:
    """Carry out ``run`` and return its row; what later runs need of it is written to ``folder``.

    A run that was killed goes on from its checkpoint in ``folder``, to the same bits. torch's thread count and the global
    random generators are afterwards what they were.

    Raises:
        BadInput: the task's functions cannot be used as the task says, or an artefact of a needed run is not there.
        NotFinite: the loss or the metric is NaN or infinite.
        Exception: whatever the task's own functions raise.
    """
    began = time.perf_counter()
    with computing_with(run.threads), own_randomness():
        task = ready(run.task, device_here())
        artefacts = Artefacts(Path(folder))
        stage = stage_of(Cell(run, task, artefacts))
        stage, training = _trained(run, task, stage, artefacts, tell)
        model = stage.model if stage.session is None else stage.session.finish()
        trained = time.perf_counter()
        value = task.evaluate(model)
        evaluated = time.perf_counter()
        _keep(run, stage, artefacts, model, value)
        row = done_row(run, task, stage, training, model, value)
    for left in artefacts.checkpoints(run.name):
        left.unlink(missing_ok=True)
    ended = time.perf_counter()
    evaluation = training.evaluation_seconds + evaluated - trained
    row["seconds"] = {"training": training.seconds, "evaluation": evaluation, "measuring": ended - evaluated,
                      "total": ended - began}  # fmt: skip
    return row


def failed(run: Run, error: BaseException, seconds: float) -> dict[str, Any]:
    """The row of a run that ended with ``error`` after ``seconds``."""
    return failed_row(run, error, seconds)


def stored(run: Run, folder: Path) -> bool:
    """Whether what later runs need of ``run`` is in ``folder``."""
    artefacts = Artefacts(Path(folder))
    if run.arm.protocol == "start":
        return artefacts.weights(run.name).is_file()
    if run.arm.protocol in KEEPS_MASKS:
        return all((artefacts.masks(run.name) / name).is_file() for name in ("plan.json", "plan.safetensors"))
    return True


def device_here() -> torch.device:
    """Where runs are carried out: the first CUDA device, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _trained(run: Run, task: Ready, stage: Stage, artefacts: Artefacts, tell: Tell) -> tuple[Stage, Training]:
    """``stage`` and its training when all steps have been taken, those of every round where there are rounds."""
    if not isinstance(stage.session, Tickets):
        training = _training(run, task, stage, artefacts.checkpoint(run.name), tell)
        take_steps(task, training)
        return stage, training
    whole = steps(run)

    def train(part: Stage, number: int, before: int) -> Training:
        path = artefacts.checkpoint(run.name, number)
        training = _training(run, task, part, path, lambda name, step, _: tell(name, before + step, whole))
        take_steps(task, training)
        return training

    return Carried(stage, train, task.evaluate, artefacts.checkpoint(run.name)).all()


def _training(run: Run, task: Ready, stage: Stage, checkpoint: Path, tell: Tell) -> Training:
    if run.task.evaluate_every and "validation" not in task.data:
        raise BadInput(f"task {run.task.name!r}: evaluate_every evaluates on data['validation'], which there is not")
    return Training(
        model=stage.model,
        data=task.data,
        steps=stage.steps,
        seed=run.seed,
        batch=run.task.batch,
        settings=stage.settings,
        autocast=run.task.autocast,
        first=stage.first,
        into=stage.into,
        name=run.name,
        session=stage.session,
        checkpoint=checkpoint,
        tell=tell,
        evaluate=partial(task.evaluate, split="validation"),
        evaluate_every=run.task.evaluate_every,
        validation_loss=task.validation_loss,
    )


def take_steps(task: Ready, training: Training) -> None:
    """All steps of ``training``, by the task's own function or the built-in loop.

    Raises:
        BadInput: the function did not take them all, or cannot be used so.
        NotFinite: the loss is NaN or infinite.
    """
    if training.steps == 0:
        return
    if task.train is None:
        supervised(training, task.loss, task.transform)
    else:
        task.train(training)
    training.finish()


def _keep(run: Run, stage: Stage, artefacts: Artefacts, model: nn.Module, value: float) -> None:
    if run.arm.protocol == "start":
        artefacts.save_weights(model, run.name, value)
    if run.arm.protocol in KEEPS_MASKS and stage.session is not None:
        artefacts.save_masks(stage.session.plan(), run.name)
