"""Rows and what goes with them: a removed filter is exactly silent behind its norm."""

import pytest
import torch
from torch import nn

from secateurs.comparing.studies.filters import Filters, Layers, find_filters, plan_of
from secateurs.errors import BadInput


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, width, 3, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        return self.bn1(self.conv1(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(4), Block(6))
        self.back = nn.ConvTranspose2d(2, 3, 2)
        self.head = nn.Linear(3, 5)


def test_a_glob_gives_each_layer_what_lies_beside_it():
    found = find_filters(Net(), [Layers("blocks.*.conv1.weight", ("blocks.*.bn1.*",)), Layers("head")])
    assert found == (
        Filters("blocks.0.conv1.weight", "conv", (4, 2, 3, 3), 0, ("blocks.0.bn1.weight", "blocks.0.bn1.bias")),
        Filters("blocks.1.conv1.weight", "conv", (6, 2, 3, 3), 0, ("blocks.1.bn1.weight", "blocks.1.bn1.bias")),
        Filters("head.weight", "linear", (5, 3), 0, ("head.bias",)),
    )
    assert [layer.choice(0.5).keep for layer in found] == [2, 3, 2]


def test_removed_rows_and_nothing_else_are_masked():
    net = Net()
    filters = find_filters(net, [Layers("back"), Layers("blocks.0.conv1", ("blocks.0.bn1.*",))])
    plan = plan_of(filters, ((0, 2), (1,)))
    assert plan.masks["back.weight"].any(0).flatten(1).all(1).tolist() == [True, False, True]  # [in, out, ...]
    assert plan.masks["back.bias"].tolist() == [True, False, True]
    assert plan.masks.kept() == {
        "back.weight": 2 * 2 * 4, "back.bias": 2, "blocks.0.conv1.weight": 18, "blocks.0.bn1.weight": 1, "blocks.0.bn1.bias": 1,
    }  # fmt: skip
    assert plan.removed == sum(entry.removed for entry in plan.entries) == plan.size - sum(plan.masks.kept().values())


@pytest.mark.parametrize("training", [False, True])
def test_a_removed_filter_is_silent_behind_its_norm(training):
    block = Block(4).train(training)
    nn.init.normal_(block.bn1.bias)
    nn.init.normal_(block.bn1.running_mean)
    whole = block(torch.ones(2, 2, 5, 5))
    plan_of(find_filters(block, [Layers("conv1", ("bn1.*",))]), ((0, 3),)).replay(block)
    found = block(torch.ones(2, 2, 5, 5))
    assert (found[:, 1:3] == 0).all() and (whole[:, 1:3] != 0).any()
    if not training:
        assert torch.equal(found[:, [0, 3]], whole[:, [0, 3]])


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([Layers("conv9.weight")], "layers='conv9.weight' matches no parameter"),
        ([Layers("blocks.0.bn1")], "names only what is left alone"),
        ([Layers("head"), Layers("head.weight")], "'head.weight' is named twice"),
        ([Layers("head", ("hat.*",))], r"with: 'hat.\*' matches no parameter"),
        ([Layers("head", ("back.bias",))], r"'back.bias' has shape \(3,\), so its entries do not go with the 5 filters"),
        ([Layers("blocks.*.conv1", ("back.bias",))], "'back.bias' lies beside 0 of the layers that 'blocks"),
        ([Layers("blocks.0.conv?.weight", ("blocks.0.bn1.*",))], "'blocks.0.bn1.weight' lies beside 2 of the layers"),
    ],
)
def test_names_that_do_not_fit(layers, said):
    with pytest.raises(BadInput, match=said):
        find_filters(Net(), layers)


def test_a_ratio_that_removes_nothing():
    with pytest.raises(BadInput, match=r"ratio=0\.05 removes none of the 5 filters of 'head.weight'"):
        find_filters(Net(), [Layers("head")])[0].choice(0.05)
