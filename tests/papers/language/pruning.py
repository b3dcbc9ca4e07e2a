"""Small networks, their calibration data, and pruning them by any method."""

from __future__ import annotations

import torch
from torch import nn

import secateurs as sc

__all__ = ["INSIDE", "METHODS", "bits", "data", "matrices", "network", "prune", "same"]

METHODS = ("magnitude", "wanda", "sparsegpt", "gblm")
INSIDE = ["*layers.*"]  # of a language model, what walks reach


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4))


def data(count: int = 4, rows: int = 10) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs with correlated columns of unequal size, and labels."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(8, 8, generator=generator) * torch.logspace(-1, 1, 8)
    return [(torch.randn(rows, 8, generator=generator) @ mixing, torch.randint(4, (rows,), generator=generator))
            for _ in range(count)]  # fmt: skip


def prune(model, method, given=None, **settings):
    """``sc.prune``, with calibration for whoever needs it; magnitude chooses from the same weights as the others."""
    given = data() if given is None and isinstance(model, nn.Sequential) else given
    if method == "magnitude" and not isinstance(model, nn.Sequential):
        settings = {"include": INSIDE} | settings
    needs = method != "magnitude" or settings.get("allocation") in ("owl", "ecoflap")
    return sc.prune(model, method, calibration=given if needs else None, **settings)


def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.contiguous().view(torch.uint8) for name, value in model.state_dict().items()}


def same(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)
