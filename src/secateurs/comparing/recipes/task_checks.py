"""What cannot work in a task. The functions it names are not looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from secateurs.comparing.recipes.values import (
    check_seeds,
    check_sparsities,
    known_keys,
    no_doubles,
    number,
    one_of,
    placed,
    whole,
)
from secateurs.comparing.spec import Optimizer, Task, plain
from secateurs.errors import BadInput, near
from secateurs.recipe import Recipe

__all__ = ["check_optimizer", "check_task"]

OPTIMIZERS = ("sgd", "adam", "adamw")
RATES = ("constant", "cosine", "linear", "drops")
SPLITS = ("train", "validation", "test")
DIRECTIONS = ("higher", "lower")
SELECTION = ("include", "exclude", "types", "exempt")
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def check_task(task: Task) -> None:
    """Raise :class:`BadInput` for a task whose values cannot work."""
    if not isinstance(task.name, str) or not task.name.strip():
        raise BadInput(f"name={task.name!r}: give the task a name")
    for key in ("steps", "batch", "calibration", "latency_batch", "version"):
        whole(key, getattr(task, key), 1)
    if task.evaluate_every is not None:
        whole("evaluate_every", task.evaluate_every, 1)
    _check_functions(task)
    one_of("evaluate_on", task.evaluate_on, SPLITS)
    _check_widths(task)
    with placed("optimizer"):
        check_optimizer(task.optimizer)
    if task.dense:
        with placed("dense"):
            whole("steps", task.dense.steps, 1)
            check_optimizer(task.dense.optimizer or task.optimizer)
    with placed("selection"):
        known_keys(task.selection, SELECTION)
        Recipe.from_dict(task.selection)
    if task.seeds is not None:
        check_seeds(task.seeds)
    if task.sparsities is not None:
        check_sparsities(task.sparsities, "sparsities")
    try:
        json.dumps(plain(task), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput("options are plain numbers, words, lists and mappings, because runs are named by them "
                       f"({error})") from error  # fmt: skip


def _check_functions(task: Task) -> None:
    from secateurs.comparing.metrics import METRICS

    for key in ("model", "data"):
        _function(key, getattr(task, key))
    if task.transform is not None:
        _function("transform", task.transform)
    _function("loss", task.loss, ("cross-entropy",))
    _function("train", task.train, ("built-in",))
    _function("metric", task.metric, METRICS)
    if task.direction is not None:
        one_of("direction", task.direction, DIRECTIONS)
    known = METRICS.get(task.metric) if isinstance(task.metric, str) else None
    if known is None and task.direction is None:
        raise BadInput(f"metric {plain(task.metric)!r} is your own: say which is better (direction: higher, or lower)")
    if known is not None and task.direction not in (None, known.direction):
        raise BadInput(f"direction={task.direction!r}: metric {known.name!r} is better {known.direction}; leave direction out")


def _function(key: str, said: Any, known: Iterable[str] = ()) -> None:
    known = list(known)
    if callable(said) or said in known or (isinstance(said, str) and FUNCTION.fullmatch(said)):
        return
    names = f"one of {', '.join(known)}, or " if known else ""
    raise BadInput(f"{key}={said!r}: give {names}a function as module:function{near(said, known)}")


def _check_widths(task: Task) -> None:
    for width in task.widths if task.width is None else (task.width, *task.widths):
        number("width" if width == task.width else "widths", width, lambda w: w > 0, "above 0")
    if task.widths and task.width is None:
        raise BadInput("widths are given, but not the width of the task's own model (width:)")
    no_doubles("widths", task.widths)
    if task.width is not None and "width" in task.model_options:
        raise BadInput("width is given twice: as the task's width and among its model_options; leave it out of those")


def check_optimizer(optimizer: Optimizer) -> None:
    """Raise :class:`BadInput` for settings that cannot work."""
    one_of("name", optimizer.name, OPTIMIZERS)
    one_of("rate", optimizer.rate, RATES)
    for key in ("lr", "factor"):
        number(key, getattr(optimizer, key), lambda v: v > 0, "above 0")
    for key in ("weight_decay", "clip"):
        number(key, getattr(optimizer, key), lambda v: v >= 0, "not negative")
    for key in ("momentum", "warmup"):
        number(key, getattr(optimizer, key), lambda v: 0 <= v < 1, "at least 0 and below 1")
    for share in optimizer.milestones:
        number("milestones", share, lambda v: 0 < v < 1, "shares of training, above 0 and below 1")
    if list(optimizer.milestones) != sorted(optimizer.milestones):
        raise BadInput(f"milestones={list(optimizer.milestones)}: give them in order")
    if optimizer.nesterov and (optimizer.name != "sgd" or optimizer.momentum == 0):
        raise BadInput("nesterov needs sgd with a momentum")
