"""Sparse pre-training: counts, nesting, averages and the moments of compute, on a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput
from secateurs.planning import same_compute
from tests.papers.networks import batches, tiny

TOTAL = 400  # weights of the tiny network


class Watched:
    """A run with the masks in force after every step."""

    def __init__(self, steps: int, model: nn.Module | None = None, **settings: Any):
        self.model, self.steps = model or tiny(), steps
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, weight_decay=0.1)
        self.pruner = sc.Pruner(self.model, "journey", **{"sparsity": 0.6, "total_steps": steps, **settings})
        self.pruner.attach(self.optimizer)
        self.masks = [self.snapshot()]
        for inputs, labels in batches(8) * (steps // 8) + batches(steps % 8):
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(inputs), labels).backward()
            self.optimizer.step()
            self.masks.append(self.snapshot())

    def snapshot(self) -> dict[str, torch.Tensor]:
        return {name: mask.clone() for name, mask in self.pruner.masks.items()}

    @property
    def left(self) -> list[int]:
        """Weights in use after every step, from 0 on."""
        return [sum(int(mask.sum()) for mask in masks.values()) for masks in self.masks]


def test_counts_after_every_update_are_the_powers_of_one_share():
    run = Watched(60, begin=10, end=40, every=5)
    r = 1 - 0.4 ** (1 / 7)
    updates = [10, 15, 20, 25, 30, 35, 40]
    assert [row["step"] for row in run.pruner.history] == updates
    left = [run.left[step] for step in updates]
    assert left == pytest.approx([TOTAL * (1 - r) ** (j + 1) for j in range(7)], abs=0.5001)
    assert left[-1] == run.left[-1] == 160 and run.left[9] == TOTAL


def test_masks_are_nested_and_rank_the_whole_network():
    run = Watched(60, begin=10, end=40, every=5)
    for before, after in zip(run.masks, run.masks[1:], strict=False):
        assert all((after[name] <= before[name]).all() for name in after)
    assert len({round(int(mask.sum()) / mask.numel(), 3) for mask in run.masks[-1].values()}) > 1  # not layer by layer


def test_the_smallest_of_the_network_go():
    model = tiny()
    values = torch.cat([model[i].weight.detach().abs().flatten() for i in (0, 2, 4)])
    pruner = sc.Pruner(model, "journey", sparsity=0.6, begin=0, end=20, every=10, total_steps=30)
    pruner.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    mask = torch.cat([pruner.masks[f"{i}.weight"].flatten() for i in (0, 2, 4)])
    assert int(mask.sum()) == round(TOTAL * 0.4 ** (1 / 3))
    assert values[~mask].max() <= values[mask].min()


def test_the_average_is_the_closed_form_to_within_an_update():
    run = Watched(160, begin=0, end=160, every=4)
    counted = sum(run.left[:-1]) / 160 / TOTAL
    assert run.pruner.average_density == pytest.approx(counted)
    closed = 0.6 / -torch.log(torch.tensor(0.4)).item()
    assert counted == pytest.approx(closed, abs=1 / len(run.pruner.history))


def test_a_dense_run_has_all_its_weights_on_average():
    assert Watched(16, sparsity=0.0).pruner.average_density == 1.0


def test_it_begins_and_ends_by_compute_counted_in_weights():
    schedule, steps = same_compute(0.6, 100, every=2)
    run = Watched(steps, every=2)
    assert (run.pruner.schedule.begin, run.pruner.schedule.end) == (schedule.begin, schedule.end)
    spent = torch.tensor(run.left[:-1]).double().cumsum(0) / TOTAL
    assert float(spent[-1]) == pytest.approx(100, abs=0.5)  # dense steps, as many as the dense run has
    first, last = run.pruner.history[0]["step"], run.pruner.history[-1]["step"]
    assert float(spent[first - 1]) == pytest.approx(25, abs=1) and float(spent[last - 1]) == pytest.approx(75, abs=1)
    assert steps == pytest.approx(164, abs=2) and first == 25 and last / steps < 0.65  # of the steps it is another share


def test_decay_and_momentum_leave_the_mask_as_it_was():
    run = Watched(1000, begin=0, end=0)
    assert len(run.pruner.history) == 1
    assert all(torch.equal(mask, run.masks[0][name]) for name, mask in run.masks[-1].items())
    weights = dict(run.model.named_parameters())
    assert all((weights[name][~mask] == 0).all() for name, mask in run.masks[-1].items())


def test_what_is_masked_has_no_part_in_the_output():
    """The loss does not depend on a masked weight's stored value: it is zero at every forward pass."""
    run = Watched(20, begin=0, end=0)
    seen = []
    run.model[0].register_forward_pre_hook(lambda module, _: seen.append(module.weight[~run.masks[0]["0.weight"]].abs().max()))
    run.model(batches(1)[0][0])
    assert seen == [0.0]


def test_random_scores_are_nested_too():
    run = Watched(40, begin=4, end=20, every=4, criterion="random")
    for before, after in zip(run.masks, run.masks[1:], strict=False):
        assert all((after[name] <= before[name]).all() for name in after)
    assert run.left[-1] == 160


def test_two_of_four_are_never_touched_and_half_is_exactly_two_of_four():
    run = Watched(60, sparsity=0.5, begin=10, end=40, every=5, structure="2:4:global")
    for before, after in zip(run.masks, run.masks[1:], strict=False):
        for name in after:
            assert (after[name] <= before[name]).all() and int(after[name].view(-1, 4).sum(1).min()) >= 2
    assert all((mask.view(-1, 4).sum(1) == 2).all() for mask in run.masks[-1].values())
    halfway = {name: mask.view(-1, 4).sum(1).double().mean().item() for name, mask in run.masks[25].items()}
    assert len(set(halfway.values())) > 1  # one ranking over the network on the way


def test_two_of_four_by_eye():
    model = nn.Sequential(nn.Linear(8, 1, bias=False))
    model[0].weight.data = torch.tensor([[9.0, 8, 7, 6, 1, 2, 3, 4]])
    masks = {0.125: [1, 1, 1, 1, 0, 1, 1, 1], 0.375: [1, 1, 1, 0, 0, 0, 1, 1], 0.5: [1, 1, 0, 0, 0, 0, 1, 1]}
    for sparsity, kept in masks.items():
        found = sc.prune(model, "global-magnitude", sparsity=sparsity, structure="2:4:global")
        assert found.plan.masks["0.weight"].int().tolist() == [kept]


def test_bad_settings():
    with pytest.raises(BadInput, match=r"begin='25% of compute' and end='75% of compute' are shares .* total_steps is needed"):
        sc.Pruner(tiny(), "journey", sparsity=0.5)
    with pytest.raises(BadInput, match=r"structure='2:4:global' lets go of at most 0\.5 of the weights, and 0\.6 were asked"):
        sc.Pruner(tiny(), "journey", sparsity=0.6, total_steps=10, structure="2:4:global")
    wide = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    with pytest.raises(BadInput, match=r"keeps 2 of every 4 weights, but .* were to go; use allocation='global' or 'uniform'"):
        sc.prune(wide, "random", sparsity=0.5, structure="2:4:global", allocation="erk")
    with pytest.raises(BadInput, match="its input dimension 6 is not a multiple of 4"):
        sc.prune(nn.Linear(6, 4), "global-magnitude", sparsity=0.5, structure="2:4:global")
