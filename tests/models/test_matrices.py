"""A weight as matrices whose columns are the measured inputs."""

import pytest
import torch
from torch import nn

from secateurs.core.layout import Layout
from secateurs.models import Weight, broadcast, from_matrices, matrices, parts, survey
from secateurs.train.walk.columns import columns

LAYERS = {
    "linear": (nn.Linear(3, 4), (2, 5, 3)),
    "conv1d": (nn.Conv1d(3, 4, 2, stride=2), (2, 3, 7)),
    "conv2d": (nn.Conv2d(3, 4, (2, 3), padding=(1, 2), dilation=(1, 2)), (2, 3, 5, 6)),
    "same": (nn.Conv1d(2, 4, 4, padding="same", padding_mode="circular"), (2, 2, 7)),
    "conv3d": (nn.Conv3d(1, 2, 2), (1, 1, 3, 3, 3)),
    "grouped": (nn.Conv2d(4, 6, 2, groups=2), (2, 4, 3, 4)),
    "depthwise": (nn.Conv1d(3, 3, 2, groups=3), (3, 5)),
}


def weight_of(layer):
    (weight,) = survey(layer).weights
    return weight


@pytest.mark.parametrize("name", LAYERS)
def test_columns_times_matrices_is_what_the_layer_gives(name):
    layer, shape = LAYERS[name]
    layer, x, weight = layer.double(), torch.randn(shape).double(), weight_of(layer)
    layer.bias.data.zero_()
    rows = columns(weight, layer, x)
    assert len(rows) == parts(weight)
    outputs = torch.cat([r @ m.T for r, m in zip(rows, matrices(weight), strict=True)], -1)
    expected = layer(x)
    if name != "linear":
        expected = expected.unsqueeze(0) if expected.dim() == x.dim() == weight.parameter.dim() - 1 else expected
        expected = expected.flatten(2).transpose(1, 2)
    torch.testing.assert_close(outputs, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_matrices_come_back_and_columns_are_spread_over_the_weight(name):
    weight = weight_of(LAYERS[name][0])
    stacked = matrices(weight)
    assert torch.equal(from_matrices(weight, stacked), weight.parameter)
    factors = torch.rand(stacked.shape[0], stacked.shape[2])
    scaled = broadcast(weight, factors).to(weight.parameter.dtype) * weight.parameter
    torch.testing.assert_close(matrices(weight, scaled.detach()), stacked * factors[:, None].to(stacked.dtype))


@pytest.mark.parametrize("layout", [Layout(1, 2), Layout(2, 1)])
def test_stacked_experts_are_a_part_each(layout):
    weight = Weight("w", "experts", nn.Parameter(torch.randn(2, 3, 5)), layout, "w", ())
    site = type("Site", (), {"module": nn.Identity()})()
    weight = Weight("w", "experts", weight.parameter, layout, "w", (site,))
    stacked = matrices(weight)
    expected = weight.parameter if layout == Layout(1, 2) else weight.parameter.transpose(1, 2)
    assert parts(weight) == 2 and torch.equal(stacked, expected)
    assert torch.equal(from_matrices(weight, stacked), weight.parameter)
    factors = torch.rand(2, stacked.shape[2])
    torch.testing.assert_close(matrices(weight, broadcast(weight, factors) * weight.parameter), stacked * factors[:, None])
