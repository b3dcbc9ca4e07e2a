"""SET, RigL and GraNet: what they conserve, what they grow, and what grown weights begin with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.allocation import er_densities
from secateurs.core.count import removed_count
from secateurs.errors import BadInput
from secateurs.papers.weights.rigl import annealed
from tests.papers.networks import batches, tiny

STEPS, TOTAL = 12, 400


class Watched:
    """A run of ``STEPS`` with the masks after every step."""

    def __init__(self, method: str, optimizer: str = "SGD", **settings: Any):
        self.model = tiny()
        arguments = {"lr": 0.1, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.01}
        self.optimizer = getattr(torch.optim, optimizer)(self.model.parameters(), **arguments)
        given = {"sparsity": 0.7, "total_steps": STEPS, "every": 3, **settings}
        self.pruner = sc.Pruner(self.model, method, **given)
        self.pruner.attach(self.optimizer)
        self.masks = [self.snapshot()]

    def snapshot(self) -> dict[str, torch.Tensor]:
        return {name: mask.clone() for name, mask in self.pruner.masks.items()}

    def steps(self, stop: int = STEPS) -> Watched:
        for inputs, labels in batches(STEPS)[len(self.masks) - 1 : stop]:
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(inputs), labels).backward()
            self.optimizer.step()
            self.masks.append(self.snapshot())
        return self

    def moved(self) -> list[int]:
        """Steps at which masks changed."""
        pairs = enumerate(zip(self.masks, self.masks[1:], strict=False), 1)
        return [step for step, (a, b) in pairs if any(not torch.equal(a[name], b[name]) for name in a)]

    def kept(self) -> list[list[int]]:
        return [[int(mask.sum()) for mask in masks.values()] for masks in self.masks]


def test_layer_counts_are_constant_where_the_network_is_sparse_from_the_start() -> None:
    densities = er_densities([torch.Size([12, 12]), torch.Size([16, 12]), torch.Size([4, 16])], 0.3)
    for method in ("set", "rigl"):
        run = Watched(method).steps()
        assert len({tuple(row) for row in run.kept()}) == 1
        assert sum(run.kept()[0]) == 400 - removed_count(400, 0.7) == 120
        for kept, n, density in zip(run.kept()[0], (144, 192, 64), densities, strict=True):
            assert abs(kept - n * density) <= 1


def test_when_weights_move() -> None:
    assert Watched("set").steps().moved() == [3, 6, 9]  # not at 12: what is grown there would not train
    assert Watched("rigl").steps().moved() == [3, 6]  # at 9, three quarters of training, the share has fallen to nothing
    assert Watched("set", options={"share": 0.0}).steps().moved() == []
    granet = Watched("granet", begin=0, end=6, initial_sparsity=0.5).steps()
    assert granet.moved() == [3, 6, 9]  # the exchange goes on when the ramp is over


def test_the_share_falls_from_alpha_to_nothing() -> None:
    assert annealed(0.3, 0.0, 0, 75) == pytest.approx(0.3) and annealed(0.3, 0.0, 75, 75) == pytest.approx(0)
    assert annealed(0.5, 0.005, 50, 100) == pytest.approx(0.2525)


def test_granet_follows_the_ramp_in_total_and_keeps_the_layers_when_it_exchanges() -> None:
    run = Watched("granet", begin=0, end=6, initial_sparsity=0.5).steps()
    totals = [sum(row) for row in run.kept()]
    ramp = [0.3 + 0.2 * (1 - p) ** 3 for p in (0, 0.5, 1)]  # density at 0, 3 and 6
    assert [totals[0], totals[3], totals[6]] == [400 - removed_count(400, 1 - d) for d in ramp]
    assert run.kept()[6] == run.kept()[9] == run.kept()[12]
    assert [row["step"] for row in run.pruner.history if "exchanged" in row] == [3, 6, 9]


def test_granet_begins_with_random_masks_of_erk_densities() -> None:
    run = Watched("granet", initial_sparsity=0.5)
    drawn = sc.prune(tiny(), "random", sparsity=0.5).plan.masks
    assert all(torch.equal(run.masks[0][name], mask) for name, mask in drawn.items())


def test_without_exchange_granet_is_gradual_global_magnitude_pruning() -> None:
    settings = {"begin": 0, "end": 6}
    mine = Watched("granet", options={"first": 0.0}, **settings).steps()
    theirs = Watched("global-magnitude", schedule="cubic", **settings).steps()
    for a, b in zip(mine.masks, theirs.masks, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_grown_weights_begin_at_zero_and_move_with_the_first_gradient(optimizer: str) -> None:
    for method, settings in (("set", {}), ("granet", {"initial_sparsity": 0.5})):
        run = Watched(method, optimizer, **settings).steps(3)
        parameters = dict(run.model.named_parameters())
        grown = {name: run.masks[3][name] & ~run.masks[2][name] for name in run.masks[3]}
        assert sum(int(g.sum()) for g in grown.values()) > 0
        for name, g in grown.items():
            assert bool((parameters[name][g] == 0).all())
            for value in run.optimizer.state[parameters[name]].values():
                assert value.shape != g.shape or bool((value[g] == 0).all())
        run.steps(4)
        for name, g in grown.items():
            gradient = parameters[name].grad
            assert gradient is not None and (not g.any() or bool((gradient[g] != 0).any()))
            assert torch.equal(parameters[name][g] != 0, gradient[g] != 0)


def test_an_exchange_takes_the_place_of_rigls_step() -> None:
    run = Watched("rigl").steps(2)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.steps(3)
    for name, p in run.model.named_parameters():
        stays = run.masks[2][name] & run.masks[3][name] if name in run.masks[3] else torch.ones_like(p, dtype=torch.bool)
        dropped_and_grown = stays & (p == 0)
        assert torch.equal(p[stays & ~dropped_and_grown], before[name][stays & ~dropped_and_grown])
    assert run.pruner.step_count == 3


def test_rigl_grows_the_largest_gradients() -> None:
    run = Watched("rigl").steps(2)
    inputs, labels = batches(STEPS)[2]
    nn.functional.cross_entropy(run.model(inputs), labels).backward()
    run.optimizer.zero_grad()
    nn.functional.cross_entropy(run.model(inputs), labels).backward()
    gradients = {name: p.grad.clone().abs() for name, p in run.model.named_parameters() if p.grad is not None}
    before = run.snapshot()
    run.optimizer.step()
    for name, mask in run.snapshot().items():
        grown, dead = mask & ~before[name], ~mask & ~before[name]
        if int(grown.sum()) and int(dead.sum()):
            assert float(gradients[name][grown].min()) >= float(gradients[name][dead].max())


def test_what_cannot_work_is_said() -> None:
    for settings, message in (
        ({"total_steps": None}, "give total_steps="),
        ({"enforcement": "keep"}, "which only enforcement='overwrite' gives"),
        ({"structure": "block:2x2"}, "exchanges single weights"),
        ({"sparsity": 0.0}, "leaves the model dense, and 'rigl' has nothing to grow"),
    ):
        with pytest.raises(BadInput, match=message):
            Watched("rigl", **settings)


def test_resumed_in_the_middle_the_bits_are_the_same() -> None:
    whole = Watched("granet", begin=0, end=6, initial_sparsity=0.5).steps()
    first = Watched("granet", begin=0, end=6, initial_sparsity=0.5).steps(5)
    second = Watched("granet", begin=0, end=6, initial_sparsity=0.5)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.pruner.load_state_dict(first.pruner.state_dict())
    second.masks = first.masks
    second.steps()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])
