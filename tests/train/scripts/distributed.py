"""Two gloo processes train one network without a pruner and with one of each kind, and one process does so alone.

    python distributed.py FOLDER

Writes ``FOLDER/rank0.pt``, ``rank1.pt`` and ``alone.pt``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

import secateurs as sc

STEPS, RAMP = 9, {"sparsity": 0.7, "begin": 2, "end": 6, "every": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    **{word: {"method": "gmp", "enforcement": word, **RAMP} for word in ("keep", "overwrite", "straight-through")},
    "rigl": {"method": "rigl", "sparsity": 0.7, "every": 2, "total_steps": STEPS},
    "journey": {"method": "journey", "total_steps": STEPS, **RAMP},
    "granet": {"method": "granet", "initial_sparsity": 0.5, "total_steps": STEPS, **RAMP},
    "woodfisher": {"method": "woodfisher", "schedule": "cubic", **RAMP},
    "bip": {"method": "bip", "sparsity": 0.7, "total_steps": STEPS, "options": {"rate": 5.0}},
}


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, part: slice) -> None:
    """``part`` of each batch of eight; the losses are means, so that two halves average to the whole."""
    generator = torch.Generator().manual_seed(4)
    for _ in range(STEPS):
        x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        model(x[part]).square().mean().backward()
        optimizer.step()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)


def pruner_of(model: nn.Module, variant: str, part: slice) -> sc.Pruner:
    """With ``part`` of each batch of its own, if it takes some."""
    said = dict(VARIANTS[variant])
    if variant not in ("bip", "woodfisher"):
        return sc.Pruner(model, **said)
    if variant == "woodfisher":  # a gradient is the mean of a batch, of which each of two processes has half
        said["options"] = {"gradients": STEPS, "samples": len(range(8)[part])}
    beside = [torch.randn(8, 6, generator=torch.Generator().manual_seed(i), dtype=torch.float64)[part] for i in range(STEPS)]
    return sc.Pruner(model, data=beside, loss=lambda model, x: model(x).square().mean(), **said)


def traffic(seen: profile) -> list[tuple[str, str]]:
    """Every collective of the process, those the gradient reducer starts included, with the shapes that gloo moved."""
    moved = [event for event in seen.events() if event.name.startswith(("c10d::", "gloo:"))]
    return sorted((event.name, str(event.input_shapes)) for event in moved)


def session(rank: int, variant: str | None) -> dict[str, Any]:
    model = DistributedDataParallel(network())
    optimizer = optimizer_of(model)
    pruner = pruner_of(model, variant, slice(4 * rank, 4 * rank + 4)) if variant else None
    dist.barrier()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        if pruner:
            pruner.attach(optimizer)
        train(model, optimizer, slice(4 * rank, 4 * rank + 4))
        masks = dict(pruner.masks) if pruner else {}
        if pruner:
            pruner.state_dict()
            pruner.finish()
    return {"traffic": traffic(seen), "masks": masks, "weights": model.module.state_dict()}


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=2)
    found = {variant or "dense": session(rank, variant) for variant in (None, *VARIANTS)}
    dist.destroy_process_group()
    torch.save(found, folder / f"rank{rank}.pt")


def alone(variant: str) -> dict[str, Any]:
    """The same run in one process on whole batches."""
    model = network()
    optimizer = optimizer_of(model)
    pruner = pruner_of(model, variant, slice(0, 8)).attach(optimizer)
    train(model, optimizer, slice(0, 8))
    masks = dict(pruner.masks)
    return {"masks": masks, "weights": pruner.finish().state_dict()}


def main() -> None:
    torch.set_num_threads(1)
    optimizer_of(network()).zero_grad()  # imports what torch imports late, before there are two processes
    folder = Path(sys.argv[1])
    pid = os.fork()
    worker(int(pid == 0), folder)
    if pid == 0:
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    torch.save({variant: alone(variant) for variant in VARIANTS}, folder / "alone.pt")
    sys.exit(status)


if __name__ == "__main__":
    main()
