"""One retraining of an oracle study: cut the dense model, measure, train with the filters held at zero, measure."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.comparing.metrics import TOGETHER
from secateurs.comparing.processes.jobs import Tell
from secateurs.comparing.running.artefacts import Artefacts
from secateurs.comparing.running.data import Split, split_of
from secateurs.comparing.running.execute import device_here, take_steps
from secateurs.comparing.running.randomness import mixed, own_randomness
from secateurs.comparing.running.record import error_of, versions
from secateurs.comparing.running.task import Ready, ready
from secateurs.comparing.running.training import Training
from secateurs.comparing.spec import SCHEMA
from secateurs.comparing.studies.filters import Filters, find_filters, plan_of
from secateurs.comparing.studies.sets import population
from secateurs.comparing.studies.spec import STUDY, Retraining
from secateurs.errors import BadInput, NotFinite
from secateurs.measure.mode import computing_with, evaluating
from secateurs.train import Held

__all__ = ["failed", "mean_loss", "retrain"]

ORDER, EXAMPLES = 21, 22  # purposes of randomness, so that none repeats another's draws
Row = dict[str, Any]


def retrain(of: Retraining, folder: Path, tell: Tell) -> Row:
    """The row of one retraining, from the dense weights that its start left in ``folder``.

    Killed, it goes on from its checkpoint in ``folder``, to the same bits.

    Raises:
        BadInput: the task's functions, its data or the layers cannot be used as the study says.
        NotFinite: a loss or the metric is NaN or infinite.
    """
    began = time.perf_counter()
    artefacts = Artefacts(Path(folder))
    with computing_with(of.threads), own_randomness():
        task = ready(of.task, device_here())
        model = task.fresh(of.seed)
        start = artefacts.load_weights(model, of.needs[0])
        filters = find_filters(model, of.layers)
        plan = plan_of(filters, of.kept)
        plan.replay(model, undoable=False)
        loss_before = mean_loss(task, model, "train", of.examples, of.seed)
        held = Held(model, plan)
        training = _training(of, task, model, held, artefacts, tell)
        take_steps(task, training)
        held.finish()
        value = task.evaluate(model)
        loss_after = mean_loss(task, model, of.task.evaluate_on, of.examples, of.seed)
    artefacts.checkpoint(of.name).unlink(missing_ok=True)
    total = time.perf_counter() - began
    found = {"start": start, "loss_before": loss_before, "value": value, "loss_after": loss_after, "history": training.history}
    times = {"training": training.seconds, "evaluation": total - training.seconds, "total": total}
    return {**_heading(of, "done"), **_facts(of, task, filters), **found, "seconds": times}


def failed(of: Retraining, error: BaseException, seconds: float) -> Row:
    """The row of a retraining that ended with ``error`` after ``seconds``."""
    return {**_heading(of, "failed"), "error": error_of(error), "seconds": {"total": seconds}}


def mean_loss(task: Ready, model: nn.Module, split: str, examples: int | None, seed: int) -> float:
    """Mean of the task's loss over examples of a split, in evaluation mode and without gradients.

    The ``examples`` measured (None for all) depend on ``seed`` and the split alone. The model is left as it was: weights,
    running statistics, training flags, gradients.

    Raises:
        BadInput: the split cannot hand out batches.
        NotFinite: the loss is NaN or infinite.
    """
    said, data = f"task {task.task.name!r}", split_of(task.data, split, task.task.name)
    if not isinstance(data, Split):
        raise BadInput(f"{said}: a study measures the loss on {split!r}, which must be a split (tensors, a dataset, or "
                       f"batch(index)); it is a {type(data).__name__}")  # fmt: skip
    chosen = _chosen(len(data), examples, seed)
    with evaluating(model):
        loss = math.fsum(float(task.loss(model, data.batch(part))) * len(part) for part in chosen.split(TOGETHER)) / len(chosen)
    if not math.isfinite(loss):
        raise NotFinite(f"{said}: the loss on {split!r} is {loss}")
    return loss


def _chosen(count: int, examples: int | None, seed: int) -> Tensor:
    if examples is None or examples >= count:
        return torch.arange(count)
    drawn = np.random.default_rng(mixed(seed, 0, EXAMPLES)).choice(count, examples, replace=False)
    return torch.from_numpy(np.sort(drawn))


def _training(of: Retraining, task: Ready, model: nn.Module, held: Held, artefacts: Artefacts, tell: Tell) -> Training:
    """The order of the data, and all else that is random, depends on seed and repeat and not on the set: sets are paired."""
    assert of.task.dense is not None  # checked when the study was read
    return Training(
        model=model,
        data=task.data,
        steps=of.task.steps,
        seed=mixed(of.seed, of.repeat, ORDER),
        batch=of.task.batch,
        settings=of.task.optimizer,
        autocast=of.task.autocast,
        first=of.task.dense.steps,
        name=of.name,
        session=held,
        checkpoint=artefacts.checkpoint(of.name),
        tell=tell,
    )


def _heading(of: Retraining, status: str) -> Row:
    return {"schema": SCHEMA, "run": of.name, "status": status, "study": STUDY, "name": of.study, "task": of.task.name,
            "set": [list(rows) for rows in of.kept], "repeat": of.repeat, "seed": of.seed, "versions": versions(),
            "determined_by": of.determined_by()}  # fmt: skip


def _facts(of: Retraining, task: Ready, filters: tuple[Filters, ...]) -> Row:
    """What is the same for all retrainings of a study."""
    assert of.task.dense is not None
    layers = [{"name": f.weight, "rows": f.rows, "kept": len(rows)} for f, rows in zip(filters, of.kept, strict=True)]
    return {"metric": task.metric_name, "direction": task.direction, "percent": task.percent, "split": of.task.evaluate_on,
            "tests_on_training_data": task.tests_on_training_data, "steps": of.task.steps, "batch": of.task.batch,
            "inherited_steps": of.task.dense.steps, "examples": of.examples, "layers": layers,
            "population": population([f.keeping(len(rows)) for f, rows in zip(filters, of.kept, strict=True)]),
            "threads": of.threads, "device": str(task.device), "code": dict(task.code)}  # fmt: skip
