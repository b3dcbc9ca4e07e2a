"""Two gloo processes carry out the rounds of every method that has some, and one process does so alone.

    python rounds_distributed.py FOLDER

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
METHODS: dict[str, dict[str, Any]] = {
    "lottery": {"sparsity": 0.7}, "lottery-rewind": {"sparsity": 0.7, "rewind": 2}, "sap": {"options": {"scope": "layer"}},
    "ap": {"sparsity": 0.7, "options": {"q": 0.1}},
}  # fmt: skip


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def carry_out(model: nn.Module, method: str, part: slice) -> dict[str, Any]:
    """``part`` of each batch of eight; the losses are means, so that two halves average to the whole."""
    rounds = sc.Rounds(model, method, rounds=2, **METHODS[method])
    for each in rounds:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        each.attach(optimizer)
        for step in range(each.first_step, STEPS):
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            optimizer.zero_grad()
            model(x[part]).square().mean().backward()
            optimizer.step()
    masks = dict(rounds.masks)
    plain = rounds.finish()
    return {"masks": masks, "weights": (plain.module if isinstance(plain, DistributedDataParallel) else plain).state_dict()}


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=2)
    part = slice(4 * rank, 4 * rank + 4)
    found = {method: carry_out(DistributedDataParallel(network()), method, part) for method in METHODS}
    dist.destroy_process_group()
    torch.save(found, folder / f"rank{rank}.pt")


def main() -> None:
    torch.set_num_threads(1)
    torch.optim.SGD(network().parameters(), lr=0.1).zero_grad()  # imports what torch imports late, before there are two
    folder = Path(sys.argv[1])
    pid = os.fork()
    worker(int(pid == 0), folder)
    if pid == 0:
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    torch.save({method: carry_out(network(), method, slice(0, 8)) for method in METHODS}, folder / "alone.pt")
    sys.exit(status)


if __name__ == "__main__":
    main()
