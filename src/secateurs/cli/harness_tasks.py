"""``secateurs evaluate --tasks``: the tasks of EleutherAI's lm-evaluation-harness, on the opened model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secateurs.cli.opening import Source
from secateurs.cli.showing import dump, show, stages
from secateurs.cli.text import open_tokenizer
from secateurs.cli.windows import own_loss
from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.report import Table

__all__ = ["evaluate_tasks"]

_FILES = (".yaml", ".yml")


def evaluate_tasks(source: Source, tasks: str, limit: int | None, as_json: bool) -> None:
    """Print what the model reaches in ``tasks``: the harness's names, or paths of task files, with commas in between.

    ``limit``: only so many samples of each.

    Raises:
        BadInput: a task is not known, or the model does not continue text.
        MissingExtra: the harness is not installed.
    """
    harness = require("lm_eval", "eval")
    with stages(2) as at:
        at.begin("opening")
        wanted, known = _named(tasks)
        opened = source.open()
        if not own_loss(opened.model):
            raise BadInput(f"{str(source.path)!r} is a {type(opened.model).__name__}: the harness's tasks are for models that "
                           "continue text")  # fmt: skip
        wrapped = require("lm_eval.models.huggingface", "eval").HFLM(
            pretrained=opened.model, tokenizer=open_tokenizer(opened, source.trust_remote_code), batch_size=1)  # fmt: skip
        at.begin("measuring")
        try:
            found = harness.simple_evaluate(model=wrapped, tasks=wanted, task_manager=known, limit=limit)
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"--tasks {tasks}: the harness cannot do them: {type(error).__name__}: {error}") from error
    rows = list(_rows(found))
    if as_json:
        dump({"model": str(source.path), "harness": harness.__version__, "limit": limit, "tasks": rows})
    else:
        show(_table(rows, harness.__version__))


def _named(tasks: str) -> tuple[list[str], Any]:
    """The names and files, and the harness's list of tasks: its own only where a name asks for it, since reading it is slow.

    Raises:
        BadInput: no name, a file that does not exist, or a name that is not known.
    """
    wanted = [name for name in (part.strip() for part in tasks.split(",")) if name]
    if not wanted:
        raise BadInput(f"--tasks {tasks!r}: give names of tasks, or paths of task files (.yaml), with commas in between")
    files = [name for name in wanted if Path(name).suffix in _FILES]
    for name in files:
        if not Path(name).is_file():
            raise BadInput(f"--tasks: {name!r} does not exist")
    known = require("lm_eval.tasks", "eval").TaskManager(include_defaults=len(files) < len(wanted))
    if unknown := [name for name in wanted if name not in files and name not in known.all_tasks]:
        raise BadInput(f"--tasks: the harness has no task {unknown[0]!r}; a task of your own is the path of a .yaml file")
    return wanted, known


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row per task and metric; the harness names a metric ``name,filter``."""
    for task, values in found["results"].items():
        samples = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str):
                continue
            error = values.get(f"{metric}_stderr,{kind}")
            yield {"task": task, "metric": metric, "filter": kind, "value": _number(value), "stderr": _number(error),
                   "samples": samples}  # fmt: skip


def _number(value: Any) -> float | None:
    """None for what is not measured (the harness says ``"N/A"``) or not finite."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _table(rows: list[dict[str, Any]], version: str) -> Table:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    lines = tuple((row["task"], row["metric"], row["filter"], number(row["value"]), number(row["stderr"]),
                   "" if row["samples"] is None else str(row["samples"])) for row in rows)  # fmt: skip
    heads = ("task", "metric", "filter", "value", "standard error", "samples")
    return Table(heads, (lines,), left=3, caption=f"By lm-evaluation-harness {version}.")
