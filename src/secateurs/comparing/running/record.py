"""The row of results that a run leaves: everything that determines it, and everything that came out."""

from __future__ import annotations

import platform
import traceback
from typing import Any

import numpy as np
import torch
from torch import nn

from secateurs.comparing.running.cell import Stage
from secateurs.comparing.running.costs import costs
from secateurs.comparing.running.task import Ready
from secateurs.comparing.running.training import Training
from secateurs.comparing.spec import MASKED, PRUNING, SCHEMA, Run
from secateurs.planning import choose_weights
from secateurs.recipe import Recipe
from secateurs.train.retraining import Retraining
from secateurs.version import __version__

__all__ = ["done_row", "error_of", "failed_row", "versions"]

BACKWARD = 3  # a training step is a forward pass and a backward pass of twice its products


def done_row(run: Run, ready: Ready, stage: Stage, training: Training, model: nn.Module, value: float) -> dict[str, Any]:
    """The row of a finished run, without its times."""
    session = stage.session
    density = 1.0 if session is None else session.average_density
    measured = costs(ready, model, run.threads)
    layers = _layers(ready, model, stage)
    selected, kept = (sum(layer[key] for layer in layers) for key in ("size", "kept"))
    inherited, task = _inherited(run), run.task
    return {
        **_heading(run, "done"),
        "sparsity": None if session is None else (selected - kept) / selected,
        "metric": ready.metric_name,
        "direction": ready.direction,
        "percent": ready.percent,
        "split": task.evaluate_on,
        "tests_on_training_data": ready.tests_on_training_data,
        "value": value,
        "before": stage.before,
        "start": stage.start,
        "history": training.history,
        **({} if stage.rounds is None else {"rounds": stage.rounds}),
        "steps": stage.steps,
        "inherited_steps": inherited,
        "batch": task.batch,
        "average_density": density,
        "cost_steps": inherited + stage.steps * density,
        "selected": selected,
        "kept": kept,
        "layers": layers,
        **measured,
        "training_flops": _training_flops(run, stage, measured, kept / selected if selected else 1.0, density),
        "width": stage.width,
        "threads": run.threads,
        "device": str(ready.device),
        "versions": versions(),
        "code": dict(ready.code),
        **({"trained_share": session.share} if isinstance(session, Retraining) else {}),
        "determined_by": run.determined_by(),
    }


def failed_row(run: Run, error: BaseException, seconds: float) -> dict[str, Any]:
    """The row of a run that ended with ``error`` after ``seconds``."""
    return {**_heading(run, "failed"), "error": error_of(error), "seconds": {"total": seconds}, "versions": versions(),
            "determined_by": run.determined_by()}  # fmt: skip


def error_of(error: BaseException) -> dict[str, str]:
    """An error as a row has it."""
    return {"type": type(error).__name__, "message": str(error), "traceback": "".join(traceback.format_exception(error))}


def versions() -> dict[str, str]:
    """What the results were made with."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "secateurs": __version__}


def _heading(run: Run, status: str) -> dict[str, Any]:
    arm = run.arm
    return {"schema": SCHEMA, "run": run.name, "status": status, "comparison": run.comparison, "task": run.task.name,
            "arm": arm.name, "protocol": arm.protocol, "of": arm.of, "method": _method(run),
            "point": run.point.label if run.point else None, "seed": run.seed}  # fmt: skip


def _method(run: Run) -> str | None:
    return run.arm.settings.get("method", "magnitude") if run.arm.protocol in PRUNING else None


def _inherited(run: Run) -> int:
    """Steps of the dense model that the run goes on with: none where it begins with random weights."""
    task, own = run.task, run.arm.protocol
    if task.dense is None or own in (*MASKED, "small-dense", "tickets") or (own == "start" and task.dense.checkpoint is None):
        return 0
    return task.dense.steps


def _layers(ready: Ready, model: nn.Module, stage: Stage) -> list[dict[str, Any]]:
    """Sizes and kept entries of what was pruned; for a dense model, of what the task would have pruned."""
    if stage.session is not None:
        kept = stage.session.masks.kept()
        return [{"name": name, "size": mask.numel(), "kept": kept[name]} for name, mask in stage.session.masks.items()]
    chosen = choose_weights(model, Recipe.from_dict(dict(ready.task.selection)), trained=False)
    return [{"name": w.name, "size": w.size, "kept": w.size} for w in chosen.weights]


def _training_flops(run: Run, stage: Stage, measured: dict[str, Any], final: float, average: float) -> float | None:
    """Floating-point operations of the run's own steps if only weights in use were computed with.

    Between dense and the final masks multiply-adds are taken to fall in proportion to the density.
    """
    own = measured["multiply_adds"]
    if own is None:
        return None
    dense = measured["dense_multiply_adds"] if stage.session is not None else own
    used = own if final >= 1 else dense - (dense - own) * (1 - average) / (1 - final)
    return 2.0 * BACKWARD * used * run.task.batch * stage.steps
