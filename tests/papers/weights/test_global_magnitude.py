"""Global magnitude pruning: gradually, down to layer collapse, and with the floor that prevents it."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.count import removed_count
from secateurs.core.select import keep_mask
from secateurs.errors import BadInput
from tests.papers.networks import batches, tiny


def chain():
    """Three layers that a signal has to pass, the middle one of small weights, as a depthwise convolution's may be."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
                          nn.Conv2d(16, 32, 1, bias=False))  # fmt: skip
    with torch.no_grad():
        model[1].weight *= 0.01
    return model


def test_gradually_every_update_is_one_ranking_of_what_is_left():
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    pruner = sc.Pruner(model, "global-magnitude", sparsity=0.8, schedule="cubic", begin=2, end=10, every=4)
    pruner.attach(optimizer)
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    for step, (inputs, labels) in enumerate(batches(12), 1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        after = {name: mask.clone() for name, mask in pruner.masks.items()}
        assert all((after[name] <= before[name]).all() for name in after)
        if step in (2, 6, 10):
            count = removed_count(400, pruner.schedule.sparsity(step))
            assert sum(int((~mask).sum()) for mask in after.values()) == count
            kept = torch.cat([p.detach().abs()[after[n]] for n, p in model.named_parameters() if n in after])
            assert kept.min() > 0  # no live weight is behind a dead one: what went was the smallest
        else:
            assert all(torch.equal(after[name], before[name]) for name in after)
        before = after
    assert [row["step"] for row in pruner.history] == [2, 6, 10]


def test_one_shot_is_the_ranking_of_the_concatenation():
    model = tiny()
    weights = {name: p.detach().abs() for name, p in model.named_parameters() if p.ndim > 1}
    expected = keep_mask(torch.cat([w.flatten() for w in weights.values()]), 320)
    found = sc.prune(model, "global-magnitude", sparsity=0.8).plan.masks
    assert torch.equal(torch.cat([found[name].flatten() for name in weights]), expected)


def test_a_collapsed_network_says_the_same_to_everything_and_a_floor_cures_it():
    inputs = torch.randn(2, 3, 6, 6)
    collapsed = sc.prune(chain(), "global-magnitude", sparsity=0.9)
    assert [entry.removed for entry in collapsed.plan.entries][1] == 144  # the whole middle layer
    assert collapsed.model(inputs).std() == 0
    floor = {"allocation": "global-floor", "allocation_options": {"floor": 16}}
    cured = sc.prune(chain(), "global-magnitude", sparsity=0.9, **floor)
    assert [entry.removed for entry in cured.plan.entries][1] == 128
    assert cured.plan.removed == collapsed.plan.removed == removed_count(432 + 144 + 512, 0.9)
    assert cured.model(inputs).std() > 0


def test_floors_that_leave_too_much_are_refused_before_anything_is_changed():
    model = tiny()
    before = [p.clone() for p in model.parameters()]
    floor = {"allocation": "global-floor", "allocation_options": {"floor": 20}}
    with pytest.raises(BadInput, match=r"sparsity 0\.95 removes 380 of 400 weights, but the floors keep 60 in 3 layers"):
        sc.prune(model, "global-magnitude", sparsity=0.95, inplace=True, **floor)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
