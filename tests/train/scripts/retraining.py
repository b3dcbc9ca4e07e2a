"""Two gloo processes retrain one pruned network by halves of each batch, and one process does so alone on whole ones.

    python retraining.py FOLDER

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

import secateurs as sc

STEPS = 6
WAYS: dict[str, dict[str, Any]] = {
    "biases": {"parts": ["biases"]},
    **{name: {"parts": ["biases"], "adapter": name, "rank": 2} for name in ("mask-lora", "scale-lora", "lora-prune")},
}


def retrained(way: dict[str, Any], part: slice, distributed: bool) -> dict[str, torch.Tensor]:
    """The finished model's values after training on ``part`` of each batch of eight."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    done = sc.prune(net, "magnitude", sparsity=0.5)
    session = sc.Retraining(done.model, done.plan, **way)
    model = DistributedDataParallel(done.model) if distributed else done.model
    optimizer = torch.optim.SGD(session.parameters(), lr=0.05, momentum=0.9)
    session.attach(optimizer)
    generator = torch.Generator().manual_seed(4)
    for _ in range(STEPS):
        x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        model(x[part]).square().mean().backward()
        optimizer.step()
    values = session.finish().state_dict()
    assert all(bool((values[name][~mask] == 0).all()) for name, mask in done.plan.masks.items())
    return values


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=2)
    found = {name: retrained(way, slice(4 * rank, 4 * rank + 4), True) for name, way in WAYS.items()}
    dist.destroy_process_group()
    torch.save(found, folder / f"rank{rank}.pt")


def main() -> None:
    torch.set_num_threads(1)
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1).zero_grad()  # what torch imports late, before there are two processes
    folder = Path(sys.argv[1])
    pid = os.fork()
    worker(int(pid == 0), folder)
    if pid == 0:
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    torch.save({name: retrained(way, slice(0, 8), False) for name, way in WAYS.items()}, folder / "alone.pt")
    sys.exit(status)


if __name__ == "__main__":
    main()
