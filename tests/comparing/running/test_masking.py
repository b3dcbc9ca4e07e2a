"""Masks in rounds, shuffled, and weights drawn to fit them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.comparing.running.masking import Rounds, amount_of, draw_to_fit, ramped, shuffled
from secateurs.comparing.spec import Point
from secateurs.planning import Plan


def random_half(model: nn.Module, sparsity: float = 0.5) -> Plan:
    return sc.prune(model, "random", sparsity=sparsity).plan


def variance(layer: nn.Module, *shape: int) -> float:
    """Of the output on inputs of unit variance, away from the border."""
    with torch.no_grad():
        return float(layer(torch.randn(*shape)).var())


LAYERS = {
    "conv": (lambda: nn.Conv2d(64, 96, 3, bias=False), (8, 64, 12, 12), 2 * 64 / 96),
    "grouped": (lambda: nn.Conv2d(64, 64, 3, groups=64, bias=False), (8, 64, 12, 12), 2.0),
    "linear": (lambda: nn.Linear(512, 256, bias=False), (512, 512), 2.0),
}


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_vary_as_those_of_the_dense_layer_under_he(kind: str, sparsity: float) -> None:
    make, shape, expected = LAYERS[kind]
    model = nn.Sequential(make())
    plan = random_half(model, sparsity)
    draw_to_fit(model, plan, seed=1)
    count = plan.masks["0.weight"].sum().item()
    assert variance(model, *shape) == pytest.approx(expected, rel=8 / math.sqrt(count) + 0.03)
    assert torch.equal(model[0].weight != 0, plan.masks["0.weight"])


def test_other_kinds_keep_the_spread_of_their_own_initialisation() -> None:
    model = nn.ModuleDict({"cells": nn.LSTM(64, 64)})
    plan, before = random_half(model), model["cells"].weight_ih_l0.detach().clone()
    draw_to_fit(model, plan, seed=1)
    mask = plan.masks["cells.weight_ih_l0"]
    more = math.sqrt(mask.numel() / mask.sum().item())
    torch.testing.assert_close(model["cells"].weight_ih_l0.detach(), before * mask * more)


def test_a_layer_with_nothing_left_is_zero() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    plan = random_half(model)
    plan.masks["0.weight"].fill_(False)
    draw_to_fit(model, plan, seed=1)
    assert torch.count_nonzero(model[0].weight) == 0 and torch.isfinite(model[1].weight).all()


def test_shuffled_masks_have_the_same_counts_in_other_places() -> None:
    plan = random_half(nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 7)), 0.8)
    other = shuffled(plan, seed=3)
    assert other.masks.kept() == plan.masks.kept() and other.entries == plan.entries
    assert all(not torch.equal(other.masks[n], plan.masks[n]) for n in plan.masks)
    assert not other.diff(shuffled(plan, seed=3)) and other.diff(shuffled(plan, seed=4))


def test_amounts_of_a_point() -> None:
    assert amount_of(Point(sparsity=0.9)) == {"sparsity": 0.9}
    assert amount_of(Point(compression=4)) == {"total_sparsity": 0.75}
    assert amount_of(Point()) == amount_of(None) == {}


@pytest.mark.parametrize("ratio", [1.0, 1.7, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_a_compression_ratio_is_met_by_the_whole_network_to_one_weight(ratio: float, allocation: str) -> None:
    model = nn.Sequential(nn.Linear(37, 23), nn.BatchNorm1d(23), nn.Linear(23, 5))
    nn.init.ones_(model[1].bias)
    plan = sc.prune(model, "magnitude", allocation=allocation, **amount_of(Point(compression=ratio))).plan  # type: ignore[arg-type]
    total, prunable = sum(p.numel() for p in model.parameters()), 37 * 23 + 23 * 5
    unprunable = total - prunable
    assert total - plan.removed == pytest.approx(total / ratio, abs=1)
    assert 1 - plan.sparsity == pytest.approx((total / ratio - unprunable) / prunable, abs=1 / prunable)


def test_rounds_keep_the_same_share_each_time_and_end_exactly() -> None:
    left = [1 - ramped(0.9, i, 3) for i in (1, 2, 3)]
    assert left[1] / left[0] == pytest.approx(left[0]) and ramped(0.9, 3, 3) == 0.9


def test_masks_of_later_rounds_lie_inside_those_before() -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    plans: list[Plan] = []

    def prune(round_: int) -> Plan:
        plans.append(sc.prune(model, "random", sparsity=ramped(0.75, round_, 3), inplace=True).plan)
        return plans[-1]

    session = Rounds(model, prune, rounds=3, steps=8)
    session.attach(optimizer)
    kept = []
    for _ in range(8):
        kept.append(int(torch.count_nonzero(model[0].weight)))
        optimizer.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
    assert kept == [40] * 2 + [25] * 2 + [16] * 4  # what does not divide goes to the last round
    assert session.average_density == sum(kept) / (8 * 64)
    assert all((later.masks["0.weight"] <= plan.masks["0.weight"]).all() for plan, later in pairwise(plans))
    session.finish()
