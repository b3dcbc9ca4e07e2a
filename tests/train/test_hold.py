"""Masks that are held: exact zeros after every step of anything."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.masks import Masks
from secateurs.errors import BadInput, BrokenPromise
from secateurs.planning import Entry, Plan
from secateurs.train import Held

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, 0.1),
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def half(model: nn.Module) -> Plan:
    return sc.prune(model, "magnitude", sparsity=0.5, inplace=True).plan


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(8, 6)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_counts_are_exact_after_every_step_even_with_an_old_state(name: str) -> None:
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(3):
        step(model, optimizer)  # momentum of weights that are about to go
    plan = half(model)
    held = Held(model, plan).attach(optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(4):
        step(model, optimizer)
        for weight, mask in plan.masks.items():
            value = model.get_parameter(weight)
            assert torch.count_nonzero(value[~mask]) == 0 and torch.count_nonzero(value[mask]) == mask.sum()
    assert held.finish() is model
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters())  # everything else has trained
    assert held.average_density == 22 / 45 and held.sparsity == 23 / 45


def test_gradients_of_masked_entries_do_not_count_when_the_norm_is_clipped() -> None:
    model = net()
    plan = half(model)
    alone = copy.deepcopy(model)
    Held(model, plan).attach(torch.optim.SGD(model.parameters(), 0.1))
    x = torch.randn(8, 6)
    for one in (model, alone):
        one(x).sum().backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    for name, mask in plan.masks.items():
        alone.get_parameter(name).grad.mul_(mask)  # type: ignore[union-attr]
    assert norm == nn.utils.clip_grad_norm_(alone.parameters(), 1e9)


def test_a_tied_weight_and_a_bias_are_held() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(4, 3), "head": nn.Linear(3, 4)})
    model["head"].weight = model["table"].weight  # type: ignore[assignment]
    masks = Masks({"table.weight": torch.arange(12).view(4, 3) % 2 == 0, "head.bias": torch.tensor([True, False, True, False])})
    plan = Plan((Entry("table.weight", "embedding", "element", (4, 3), 12, 6, ("head.weight",)),
                 Entry("head.bias", "bias", "element", (4,), 4, 2)), masks)  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    held = Held(model, plan).attach(optimizer)
    for _ in range(3):
        model["head"](model["table"](torch.tensor([0, 1, 2]))).square().sum().backward()
        optimizer.step()
        assert torch.count_nonzero(model["head"].weight) == 6 and torch.count_nonzero(model["head"].bias) == 2
    held.finish()


def test_a_frozen_weight_stays_zero_without_being_trained() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    plan = half(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    held = Held(model, plan).attach(optimizer)
    step(model, optimizer)
    held.finish()
    assert torch.count_nonzero(model[0].weight) == 15


def test_resumed_it_is_as_if_never_stopped() -> None:
    model = net()
    plan = half(model)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    held = Held(model, plan).attach(optimizer)
    step(model, optimizer)
    again = Held(twin, plan)
    again.load_state_dict(held.state_dict())
    assert (again.step_count, again.average_density) == (held.step_count, held.average_density) == (1, 22 / 45)
    other = sc.prune(net(), "random", sparsity=0.5).plan
    with pytest.raises(BadInput, match=r"other masks than the plan: '0\.weight'"):
        Held(twin, other).load_state_dict(held.state_dict())


def test_what_is_written_behind_its_back_is_told() -> None:
    model = net()
    plan = half(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    held = Held(model, plan).attach(optimizer)
    with torch.no_grad():
        model[2].weight.fill_(1.0)
    with pytest.raises(BrokenPromise, match=r"masked entries of '2\.weight' are not zero"):
        held.finish()


def test_nothing_stays_behind() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    held = Held(model, half(model)).attach(optimizer)
    with pytest.raises(BadInput, match="held already"):
        held.attach(optimizer)
    with pytest.raises(BadInput, match="already being pruned by an attached 'Held'"):
        sc.Pruner(model, "gmp", sparsity=0.5, total_steps=5).attach(optimizer)
    held.finish()
    assert not optimizer._optimizer_step_post_hooks and not any(p._post_accumulate_grad_hooks for p in model.parameters())
    pruned = torch.count_nonzero(model[2].weight)
    step(model, optimizer)
    assert torch.count_nonzero(model[2].weight) > pruned


def test_another_model_and_another_optimizer_are_refused() -> None:
    model = net()
    plan = half(model)
    with pytest.raises(BadInput, match=r"'0.weight' with shape \(5, 6\); this model has it with shape \(4, 6\)"):
        Held(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), plan)
    with pytest.raises(BadInput, match="does not train"):
        Held(model, plan).attach(torch.optim.SGD(net().parameters(), 0.1))
