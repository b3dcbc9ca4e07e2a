"""One run: train, prune on the way if it is a sparse one, measure, save."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.comparing.processes.jobs import Tell
from secateurs.demo.data import batches, digits
from secateurs.demo.network import build, channels
from secateurs.demo.settings import Job, recipe
from secateurs.extras import require
from secateurs.formats import read_info, save
from secateurs.measure import accuracy, sizes
from secateurs.train import Pruner

__all__ = ["Tell", "failed", "logits", "train"]


def train(job: Job, folder: Path, tell: Tell) -> dict[str, Any]:
    """Run ``job`` and return its row of results. Writes the model to ``folder / job.name`` and its test logits beside it."""
    start = time.perf_counter()
    torch.manual_seed(job.seed)
    model: nn.Module = build(job.width)
    optimizer = torch.optim.SGD(model.parameters(), job.rate, momentum=0.9, nesterov=True, weight_decay=job.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, job.rate, total_steps=job.steps, pct_start=0.15)
    pruner = Pruner(model, recipe(job)).attach(optimizer) if job.sparsity else None
    for step, (images, classes) in enumerate(batches(digits().train, job.batch, job.steps, job.seed), 1):
        optimizer.zero_grad()
        F.cross_entropy(model(images), classes).backward()
        optimizer.step()
        rates.step()
        if step % 25 == 0 or step == job.steps:
            tell(job.name, step, job.steps)
    density = pruner.average_density if pruner else 1.0
    if pruner:
        model = pruner.finish()
    _store(model, pruner, folder / job.name)
    return _row(job, model, density, folder, time.perf_counter() - start)


def failed(job: Job, error: BaseException, seconds: float) -> dict[str, Any]:
    """Instead of a row: what went wrong."""
    return {"model": job.name, "error": f"{type(error).__name__}: {error}", "seconds": seconds}


def logits(model: nn.Module) -> Tensor:
    """Logits ``[540, 10]`` of the test images, in evaluation mode."""
    with torch.no_grad():
        return model.eval()(digits().test.images)


def _store(model: nn.Module, pruner: Pruner | None, path: Path) -> None:
    logits_file = path.with_name(path.name + ".logits.safetensors")
    require("safetensors.torch", "files").save_file({"logits": logits(model)}, logits_file)
    if pruner is None:
        save(model, path, overwrite=True)
    else:
        save(model, path, recipe=pruner.recipe, plan=pruner.plan(), report=pruner.report(), overwrite=True)


def _row(job: Job, model: nn.Module, density: float, folder: Path, seconds: float) -> dict[str, Any]:
    data, size = digits(), sizes(model)
    return {
        "kind": "run",
        "id": job.id,
        "model": job.name,
        "label": job.label,
        "method": job.method,
        "point": job.point,
        "mark": job.mark,
        "seed": job.seed,
        "sparsity": job.sparsity,
        "width": job.width,
        "channels": channels(job.width),
        "steps": job.steps,
        "accuracy": accuracy(model, [(data.test.images, data.test.classes)]),
        "validation": accuracy(model, [(data.validation.images, data.validation.classes)]),
        "bytes": read_info(folder / job.name)["sizes"]["payload_bytes"],
        "parameters": size.parameters,
        "nonzero": size.nonzero,
        "average_density": density,
        "seconds": round(seconds, 2),
        "torch": torch.__version__,
    }
