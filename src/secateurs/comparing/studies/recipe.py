"""An oracle study from a YAML file or plain data. Nothing that a recipe names is imported here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs.comparing.recipes.recipe import task_from
from secateurs.comparing.recipes.values import known_keys, placed
from secateurs.comparing.studies.filters import Layers
from secateurs.comparing.studies.spec import OracleStudy
from secateurs.core.count import check_sparsity
from secateurs.errors import BadInput
from secateurs.recipe import read_mapping

__all__ = ["from_dict", "read"]

NEEDED = ("name", "task", "layers", "ratio")
COUNTS = {"samples": 1, "repeats": 1, "examples": 1, "threads": 1, "seed": 0}  # the least of each
LIMITLESS = ("samples", "examples")  # which may be "all"


def read(path: str | Path) -> OracleStudy:
    """The study a YAML file describes; its ``name`` is the file's unless it says another.

    Raises:
        BadInput: not readable, not YAML, an unknown name or a value that cannot work; the file and the key are quoted.
    """
    data = read_mapping(path, "study")
    return from_dict({"name": Path(path).stem, **data}, f"study {str(path)!r}", Path(path).parent)


def from_dict(data: Mapping[str, Any], where: str = "", folder: str | Path = ".") -> OracleStudy:
    """The study that plain data describes; functions may stand for their names.

    Args:
        data: the fields of :class:`OracleStudy`. ``layers`` is a list of names, or of mappings with ``weight`` and ``with``;
            ``samples`` and ``examples`` may be ``"all"``.
        where: what to begin errors with.
        folder: what the path of a stored dense model is relative to.

    Raises:
        BadInput: an unknown name or a value that cannot work, with the place.
    """
    with placed(where):
        known_keys(data, [f.name for f in dataclasses.fields(OracleStudy)])
        for key in NEEDED:
            if data.get(key) is None:
                raise BadInput(f"key {key!r} is missing; a study has at least {', '.join(NEEDED)}")
        if not isinstance(data["name"], str) or not data["name"].strip():
            raise BadInput(f"name={data['name']!r}: give the study a name")
        counts: Any = {key: _count(key, data[key], least) for key, least in COUNTS.items() if data.get(key) is not None}
        study = OracleStudy(
            name=data["name"],
            task=task_from(data["task"], folder),
            layers=_layers(data["layers"]),
            ratio=check_sparsity(data["ratio"], "ratio"),
            **counts,
        )
        _check(study)
    return study


def _check(study: OracleStudy) -> None:
    task = study.task
    if task.dense is None:
        raise BadInput(f"task {task.name!r} has no dense: training; the sets are cut from a trained model, so say its steps")
    if unused := [key for key in ("seeds", "sparsities", "widths", "selection") if getattr(task, key)]:
        raise BadInput(f"task {task.name!r}: key {unused[0]!r} has no use in a study of filters; seed, ratio and layers stand "
                       "beside the task")  # fmt: skip


def _layers(said: Any) -> tuple[Layers, ...]:
    entries = [said] if isinstance(said, (str, Mapping)) else said
    if not isinstance(entries, (list, tuple)) or not entries:
        raise BadInput(f"layers={said!r}: give a list of names of weights, or of mappings with weight and with")
    return tuple(map(_layer, entries))


def _layer(said: Any) -> Layers:
    if isinstance(said, Layers):
        return said
    entry = {"weight": said} if isinstance(said, str) else said
    if not isinstance(entry, Mapping):
        raise BadInput(f"layers: {said!r} is neither a name nor a mapping with weight and with")
    with placed("layers"):
        known_keys(entry, ("weight", "with"))
    weight, beside = entry.get("weight"), entry.get("with") or ()
    names = (beside,) if isinstance(beside, str) else tuple(beside) if isinstance(beside, (list, tuple)) else (None,)
    if not isinstance(weight, str) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"layers: {said!r}: weight is the name of a weight, with a list of names of what goes with its rows")
    return Layers(weight, names)


def _count(key: str, said: Any, least: int) -> int | None:
    if said == "all" and key in LIMITLESS:
        return None
    if isinstance(said, bool) or not isinstance(said, int) or said < least:
        raise BadInput(f"{key}={said!r}: give a whole number, at least {least}" + (", or all" if key in LIMITLESS else ""))
    return said
