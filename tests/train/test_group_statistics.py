"""Criteria of structures that need data: each statistic reaches the members it is of."""

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from secateurs.core.criteria import CRITERIA
from secateurs.train.group_statistics import GroupStatistics
from secateurs.train.losses import default_loss


class Block(nn.Module):
    """A residual block of 12 neurons."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


class Blocks(nn.Module):
    """Two blocks and an output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Block(), Block()])
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


INPUTS = torch.linspace(-1, 1, 24).view(4, 6)
BATCHES = [(INPUTS, torch.tensor([0, 1, 2, 0])), (-INPUTS, torch.tensor([1, 1, 0, 2]))]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_prunes_neurons(criterion):
    model = Blocks().eval()
    batches = BATCHES * (50 if criterion == "obs" else 1)  # it takes 400 examples
    done = sc.prune(model, "neurons", criterion=criterion, example=INPUTS, ratio=0.5, calibration=batches)
    assert done.verification.ok and [layer.up.out_features for layer in done.model.layers] == [6, 6]


def test_wanda_multiplies_columns_by_what_they_read():
    """Neuron 5 of the first block is never active: its column weighs nothing, whatever its weight."""
    model = Blocks().eval()
    with torch.no_grad():
        model.layers[0].up.weight[5] = 0
        model.layers[0].up.bias[5] = -1
        model.layers[0].down.weight[:, 5] = 100
    plan = sc.plan(model, "neurons", criterion="wanda", example=INPUTS, ratio=0.1, calibration=BATCHES)
    assert 5 not in plan.keeps["layers.0.up.weight:0"].tolist()
    assert 5 in sc.plan(model, "neurons", example=INPUTS, ratio=0.1).keeps["layers.0.up.weight:0"].tolist()


def test_gradients_are_the_mean_over_batches():
    model = Blocks()
    names = dict(model.named_parameters())
    found = GroupStatistics(model, ["gradient"], names, BATCHES, default_loss, 0)("out.weight")["gradient"]
    loss = sum(default_loss(model, batch) for batch in BATCHES) / 2
    torch.testing.assert_close(found, torch.autograd.grad(loss, model.out.weight)[0])


def test_a_tensor_without_the_statistic_is_none():
    model = Blocks()
    supply = GroupStatistics(model, ["norms"], dict(model.named_parameters()), BATCHES, default_loss, 0)
    assert supply("layers.0.norm.weight") is None
    assert supply("layers.0.up.weight")["norms"].shape[-1] == 6
