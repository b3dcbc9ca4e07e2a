"""A comparison from a YAML file or plain data. Nothing that a recipe names is imported here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from secateurs.comparing.recipes.arms import arm_from
from secateurs.comparing.recipes.checks import check
from secateurs.comparing.recipes.task_checks import check_task
from secateurs.comparing.recipes.values import check_sparsities, known_keys, no_switch, placed
from secateurs.comparing.spec import Comparison, Dense, Optimizer, Point, Task
from secateurs.errors import BadInput
from secateurs.recipe import check_types, read_mapping

__all__ = ["from_dict", "read", "task_from"]

KEYS = ("name", "tasks", "methods", "sparsities", "compressions", "seeds", "threads")
NUMBERS = ("width", "widths")  # kept as they are written: a function may want the integer
OPTIONS = ("model_options", "data_options", "selection")


def read(path: str | Path) -> Comparison:
    """The comparison a YAML file describes; its ``name`` is the file's unless it says another.

    Raises:
        BadInput: not readable, not YAML, an unknown name or a value that cannot work; the file and the key are quoted.
    """
    data = read_mapping(path, "comparison")
    return from_dict({"name": Path(path).stem, **data}, f"comparison {str(path)!r}", Path(path).parent)


def from_dict(data: Mapping[str, Any], where: str = "", folder: str | Path = ".") -> Comparison:
    """The comparison that plain data describes, as a YAML file would; functions may stand for their names.

    Args:
        data: the keys of a recipe.
        where: what to begin errors with.
        folder: what the path of a stored dense model is relative to.

    Raises:
        BadInput: an unknown name or a value that cannot work, with the place.
    """
    with placed(where):
        known_keys(data, KEYS)
        for key in ("name", "tasks", "methods"):
            if key not in data:
                raise BadInput(f"key {key!r} is missing; a comparison has a name, tasks and methods")
        said = {key: data[key] for key in ("seeds", "threads") if data.get(key) is not None}
        if "seeds" in said:
            said["seeds"] = _seeds(said["seeds"])
        comparison = Comparison(
            name=data["name"],
            tasks=tuple(task_from(task, folder) for task in _list(data, "tasks")),
            arms=tuple(arm_from(arm) for arm in _list(data, "methods")),
            points=_points(data),
            **said,
        )
        check(comparison)
    return comparison


def task_from(data: Any, folder: str | Path = ".") -> Task:
    """A task from plain data: the fields of :class:`secateurs.comparing.spec.Task`.

    Raises:
        BadInput: an unknown key or a value that cannot work, with the task's name.
    """
    if not isinstance(data, Mapping):
        raise BadInput(f"tasks: {data!r} is not a task; give a mapping with name, model, data and steps")
    with placed(f"task {data['name']!r}" if "name" in data else "tasks"):
        known_keys(data, [f.name for f in dataclasses.fields(Task)])
        for key in ("name", "model", "data", "steps"):
            if key not in data:
                raise BadInput(f"key {key!r} is missing; a task has at least name, model, data and steps")
        task = _task(data, Path(folder))
        check_task(task)
    return task


def _task(data: Mapping[str, Any], folder: Path) -> Task:
    said = {key: value for key, value in data.items() if value is not None and key not in NUMBERS}
    if "seeds" in said:
        said["seeds"] = _seeds(said["seeds"])
    if "sparsities" in said:
        said["sparsities"] = check_sparsities(said["sparsities"], "sparsities")
    for key, kind in (("optimizer", Optimizer), ("dense", Dense)):
        if key in said:
            _known_table(said[key], kind, key)
    if isinstance(said.get("dense"), Mapping) and said["dense"].get("optimizer") is not None:
        _known_table(said["dense"]["optimizer"], Optimizer, "dense: optimizer")
    no_switch({key: value for key, value in said.items() if key not in OPTIONS}, "")
    task = check_types(Task, said)
    width, widths = data.get("width"), data.get("widths")
    task = dataclasses.replace(task, width=width, widths=() if widths is None else _widths(widths))
    if task.dense and task.dense.checkpoint is not None:
        dense = dataclasses.replace(task.dense, checkpoint=_stored(task.dense.checkpoint, folder))
        task = dataclasses.replace(task, dense=dense)
    return task


def _known_table(value: Any, kind: type, place: str) -> None:
    if isinstance(value, kind):
        return
    fields = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(value, Mapping):
        raise BadInput(f"{place}={value!r}: give a mapping; its keys are {', '.join(fields)}")
    with placed(place):
        known_keys(value, fields)


def _list(data: Mapping[str, Any], key: str) -> Sequence[Any]:
    if not isinstance(data[key], (list, tuple)) or not data[key]:
        raise BadInput(f"{key}={data[key]!r}: give a list with at least one of them")
    return data[key]


def _points(data: Mapping[str, Any]) -> tuple[Point, ...]:
    sparsities, compressions = data.get("sparsities"), data.get("compressions")
    if sparsities is not None and compressions is not None:
        raise BadInput("sparsities and compressions both say where the methods are compared; give one of them")
    if sparsities is not None:
        return tuple(Point(sparsity=share) for share in check_sparsities(sparsities, "sparsities"))
    if compressions is None:
        return ()
    return tuple(Point(compression=ratio) for ratio in _list(data, "compressions"))


def _seeds(said: Any) -> tuple[Any, ...]:
    """``5`` is the first five seeds, from 0 to 4."""
    if isinstance(said, int) and not isinstance(said, bool) and said > 0:
        return tuple(range(said))
    if isinstance(said, (list, tuple)):
        return tuple(said)
    raise BadInput(f"seeds={said!r}: give how many (5 is 0 to 4), or a list of whole numbers")


def _widths(said: Any) -> tuple[Any, ...]:
    """A list, or ``{from: 4, to: 64, step: 4}`` with both ends; shares are added as the decimals they are written as."""
    if isinstance(said, (list, tuple)):
        return tuple(said)
    if not isinstance(said, Mapping) or set(said) != {"from", "to", "step"}:
        raise BadInput(f"widths={said!r}: give a list, or {{from: 4, to: 64, step: 4}}")
    try:
        low, high, step = (Fraction(str(said[key])) for key in ("from", "to", "step"))
    except ValueError as error:
        raise BadInput(f"widths={said!r}: from, to and step are numbers") from error
    if not (step > 0 and low <= high):
        raise BadInput(f"widths={said!r}: step is above 0, and from is not above to")
    whole = all(isinstance(said[key], int) for key in said)
    values = [low + i * step for i in range((high - low) // step + 1)]
    return tuple(int(value) if whole else float(value) for value in values)


def _stored(said: str, folder: Path) -> str:
    """The path of a stored model, seen from the working folder where it lies below it: so that names of runs can travel."""
    path = Path(os.path.abspath(folder / said))
    if not path.is_file():
        raise BadInput(f"dense: checkpoint {said!r} is no file in {str(folder)!r}")
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)
