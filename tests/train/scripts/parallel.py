"""Gloo processes prune together what one process then prunes by itself.

    python parallel.py FOLDER PROCESSES

Writes ``FOLDER/rank0.pt``, ``rank1.pt``, ... and ``alone.pt``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import secateurs as sc
from secateurs.errors import NotFinite
from secateurs.models import select, survey
from secateurs.train.losses import default_loss
from secateurs.train.walk import Block, Ranks, walk

BATCHES = 5
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "wanda-dense": {"method": "wanda", "propagate": "dense"},
    "wanda-owl": {"method": "wanda", "allocation": "owl", "exclude": ["*.never.*"]},
    "wanda-ecoflap": {"method": "wanda", "allocation": "ecoflap"},
    "sparsegpt": {"method": "sparsegpt"},
    "gblm": {"method": "gblm", "exclude": ["*.never.*"]},
    "gradient": {"method": "magnitude", "criterion": "gradient", "exclude": ["*.never.*", "*.seldom.*"]},
}


class Layer(nn.Module):
    """Two weights that read one input, one that reads their sum, and one that few inputs reach."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(12, 16), nn.Linear(12, 16), nn.Linear(16, 12)
        self.seldom, self.never = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.out(torch.tanh(self.a(x) + self.b(x)))
        y = y + self.seldom(y) if bool((x[:, 0] > 20).all()) else y
        return y + self.never(y) if bool((x[:, 0] < -20).all()) else y


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList([Layer(), Layer()]), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def data() -> list[tuple[Tensor, Tensor]]:
    """Batches of rows whose first entry is small, but large in the last batch but one: that reaches ``seldom``."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(12, 12, generator=generator) * torch.logspace(-1, 0.3, 12)
    inputs = [torch.randn(9, 12, generator=generator) @ mixing for _ in range(BATCHES)]
    inputs[-2][:, 0] += 50
    return [(x, torch.randint(4, (9,), generator=generator)) for x in inputs]


def told(pruned: Any) -> dict[str, Any]:
    return {"state": pruned.model.state_dict(), "masks": dict(pruned.plan.masks), "report": pruned.report,
            "left": sorted((left.name, left.reason) for left in pruned.left)}  # fmt: skip


def pruned_by(settings: dict[str, Any], together: bool, **more: Any) -> dict[str, Any]:
    given = {"model": net(), "sparsity": 0.5, "calibration": data(), "distributed": together} | settings | more
    return told(sc.prune(given.pop("model"), **given))


def measured(ranks: Ranks) -> dict[str, Any]:
    """The statistics that visits see, in float64."""
    model, found = net(), {}

    def visit(block: Block) -> None:
        for name, inputs in block.statistics.items():
            for want in inputs:
                one = inputs[want][0]
                found[f"{name} {want} counts"] = torch.tensor([one.tokens, one.sequences])
                found.update({f"{name} {want} {part}": getattr(one, part) for part in one.parts})

    with ranks:
        walk(model, select(survey(model)), data(), ["norms", "gram", "moments"], visit, dtype=torch.float64, ranks=ranks)
        return ranks.union(found)


def walked(visit: Any) -> None:
    model = net()
    with Ranks.of(distributed=True) as ranks:
        walk(model, select(survey(model)), data(), ["norms"], visit, ranks=ranks)


def failures(rank: int, size: int) -> dict[str, tuple[str, str, list[str]]]:
    """What each process raises where something is wrong in the last one alone, or with all."""
    last, dead = rank == size - 1, data()
    dead[-1][0][0] = torch.nan

    def breaks(model: nn.Module, batch: Any) -> Tensor:
        if last:
            raise KeyError("no such column")
        return default_loss(model, batch)

    def visit(block: Block) -> None:
        if last:
            raise NotFinite("a score of layer 7")

    return {
        "loss": _raised(lambda: pruned_by(METHODS["gblm"], True, loss=breaks)),
        "visit": _raised(lambda: walked(visit)),
        "nan": _raised(lambda: pruned_by(METHODS["sparsegpt"], True, calibration=dead)),
        "few": _raised(lambda: pruned_by(METHODS["wanda"], True, calibration=data()[:1])),
        "batches": _raised(lambda: pruned_by(METHODS["wanda"], True, calibration=data()[rank:])),
        "settings": _raised(lambda: pruned_by(METHODS["wanda"], True, sparsity=0.6 if last else 0.5)),
    }


def _raised(run: Any) -> tuple[str, str, list[str]]:
    try:
        run()
    except Exception as error:
        return type(error).__name__, str(error), list(getattr(error, "__notes__", ()))
    return "", "", []


def died(rank: int, size: int) -> tuple[str, str, list[str]]:
    """What the first process raises when the last one is gone in the middle of a walk."""

    def visit(block: Block) -> None:
        if rank == size - 1:
            os._exit(0)

    return _raised(lambda: walked(visit))


class _Killed(BaseException):
    """Ends a process as Ctrl-C does: nobody is told."""


def resumed(folder: Path, rank: int) -> dict[str, Any]:
    """A run that ends after its first block, and what the same call makes of that. Only the first process has the folder."""

    def end(done: Any) -> None:
        raise _Killed

    state, numbers = folder / ("state" if rank == 0 else f"not-shared{rank}"), []
    try:
        pruned_by(METHODS["sparsegpt"], True, state=state, progress=end)
    except _Killed:
        numbers.append(len(list(state.glob("block-*"))) if rank == 0 else int(state.exists()))
    found = pruned_by(METHODS["sparsegpt"], True, state=state, progress=lambda done: numbers.append(done.size))
    return found | {"numbers": numbers}


def worker(rank: int, size: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=size)
    found: dict[str, Any] = {name: pruned_by(settings, True) for name, settings in METHODS.items()}
    found["failures"] = failures(rank, size)
    found["resumed"] = resumed(folder, rank)
    found["statistics"] = measured(Ranks.of(distributed=True))
    torch.save(found, folder / f"rank{rank}.pt")
    torch.save(found | {"death": died(rank, size)}, folder / f"rank{rank}.pt")  # which the last one does not come to


def main() -> None:
    torch.set_num_threads(1)
    folder, size = Path(sys.argv[1]), int(sys.argv[2])
    children = []
    for rank in range(1, size):
        pid = os.fork()
        if pid == 0:
            worker(rank, size, folder)
            os._exit(0)
        children.append(pid)
    worker(0, size, folder)
    failed = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    alone = {name: pruned_by(settings, False) for name, settings in METHODS.items()}
    alone["statistics"] = measured(Ranks())
    alone["resumed"] = _raised(lambda: pruned_by(METHODS["sparsegpt"], False, state=folder / "state"))
    torch.save(alone, folder / "alone.pt")
    sys.exit(max(failed))


if __name__ == "__main__":
    main()
