"""Settings that cannot work: refused with the words of the user and near matches, before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Linear(8, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.norm(self.first(x))))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


SETTINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "sparsity one": ({"sparsity": 1.0}, ["sparsity=1.0", "below 1"]),
    "sparsity negative": ({"sparsity": -0.1}, ["sparsity=-0.1"]),
    "sparsity per cent": ({"sparsity": 90}, ["sparsity=90"]),
    "sparsity text": ({"sparsity": "0.9"}, ["sparsity='0.9'"]),
    "sparsity nan": ({"sparsity": float("nan")}, ["sparsity=nan"]),
    "no amount": ({"sparsity": None}, ["sparsity=0.9", "keep=", "total_sparsity="]),
    "two amounts": ({"keep": 0.1}, ["sparsity and keep"]),
    "keep too many": ({"sparsity": None, "keep": 81}, ["keep=81", "80"]),
    "keep nothing": ({"sparsity": None, "keep": 0.0}, ["keep=0.0"]),
    "unreachable": (
        {"sparsity": None, "total_sparsity": 0.9, "exclude": "first"},
        ["total_sparsity=0.9", "out of reach", "104", "32"],
    ),
    "begin after end": ({"begin": 7, "end": 5}, ["begin=7", "end=5"]),
    "begin share after end": ({"begin": 0.8, "end": 0.5, "total_steps": 10}, ["begin=0.8", "(step 8)", "end=0.5"]),
    "end behind training": ({"end": 20, "total_steps": 10}, ["end=20", "10 training steps"]),
    "begin behind training": ({"begin": 11, "end": 1.0, "total_steps": 10}, ["begin=11", "10"]),
    "share without total": ({"end": 0.5}, ["end=0.5", "total_steps"]),
    "share above one": ({"end": 1.5, "total_steps": 10}, ["end=1.5"]),
    "negative begin": ({"begin": -1}, ["begin=-1"]),
    "no end": ({"end": None}, ["end=", "total_steps="]),
    "every zero": ({"every": 0}, ["every=0"]),
    "every half": ({"every": 2.5}, ["every=2.5"]),
    "falling ramp": ({"initial_sparsity": 0.8}, ["initial_sparsity=0.8", "0.5"]),
    "empty selection": ({"include": "frist"}, ["include='frist'", "'first'"]),
    "only a norm": ({"include": "norm*"}, ["include='norm*'", "normalisation"]),
    "all excluded": ({"exclude": ("first", "last")}, ["nothing to prune", "exclude="]),
    "exclude nothing": ({"exclude": "lst"}, ["exclude='lst'", "'last'"]),
    "override nothing": ({"overrides": {"fist": 0.2}}, ["'fist'", "first"]),
    "override one": ({"overrides": {"first": 1.0}}, ["overrides['first']=1.0"]),
    "unknown kind": ({"types": "conf"}, ["types='conf'", "'conv'"]),
    "unknown exemption": ({"exempt": "first_conv"}, ["exempt='first_conv'", "'first-conv'"]),
    "unknown setting": ({"sparcity": 0.5}, ["'sparcity'", "'sparsity'"]),
    "unknown criterion": ({"criterion": "magnitud"}, ["criterion='magnitud'", "'magnitude'"]),
    "unknown allocation": ({"allocation": "globl"}, ["allocation='globl'", "'global'"]),
    "unknown schedule": ({"schedule": "cubik"}, ["schedule='cubik'", "'cubic'"]),
    "unknown structure": ({"structure": "blok:4x4"}, ["structure='blok:4x4'", "'block:4x4'"]),
    "unknown enforcement": ({"enforcement": "override"}, ["enforcement='override'", "'overwrite'"]),
    "unknown option": ({"options": {"ordr": "all"}}, ["'ordr'", "'order'"]),
    "unknown order": ({"options": {"order": "random"}}, ["order='random'", "'layerwise'"]),
    "taking turns globally": ({"options": {"order": "layerwise"}, "allocation": "global"}, ["allocation='global'", "turns"]),
    "2:4 and another amount": ({"structure": "2:4", "sparsity": 0.7}, ["'2:4'", "sparsity=0.7"]),
    "2:4 not dividing": ({"structure": "2:4"}, ["'2:4'", "'first.weight'", "(8, 6)"]),
    "block too large": ({"structure": "block:16x4"}, ["'block:16x4'", "'first.weight'"]),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(case: str, refused: Any) -> None:
    model = Net()
    optimizer = sgd(model)
    settings, say = SETTINGS[case]
    with refused(model, optimizer, say=say):
        sc.Pruner(model, "gmp", **{"sparsity": 0.5, "begin": 1, "end": 5, "every": 2, **settings})
    sc.Pruner(model, "gmp", sparsity=0.5, end=5).attach(optimizer)  # the model can still be pruned


def test_settings_beside_a_recipe(refused: Any) -> None:
    with refused(say=["'sparcity'", "'sparsity'"]):
        sc.Pruner(Net(), sc.Recipe(sparsity=0.5, end=4), sparcity=0.7)


def test_method(refused: Any) -> None:
    with refused(say=["'gpm'", "'gmp'"]):
        sc.Pruner(Net(), "gpm", sparsity=0.5, end=4)


def test_no_model(refused: Any) -> None:
    with refused(say=["dict"]):
        sc.Pruner({"weight": torch.ones(3)}, "gmp", sparsity=0.5, end=4)  # type: ignore[arg-type]
