"""Counts and bytes: by hand on tiny models, and the size table of the gradual-pruning paper."""

import math

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.measure import narrowest, paper_bytes, payload_bytes, sizes


def test_counts_by_hand():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [-0.0, 2.0], [0.0, 0.0]]))
        model[0].bias.fill_(1.0)
    found = sizes(model)
    assert found.parameters == 6 + 3 + 3 + 3
    assert found.nonzero == 2 + 3 + 3 + 0  # the norm's bias starts at zero
    assert found.parameter_bytes == 15 * 8
    assert found.buffer_bytes == 2 * 3 * 8 + 8  # mean, variance, and one int64 counter
    assert found.dense_bytes == found.parameter_bytes + found.buffer_bytes == payload_bytes(model)
    assert found.sparsity == pytest.approx(7 / 15)
    assert found.compression_ratio == 15 / 8
    assert found.paper_bytes == 4 * 8 + 15 / 8


def test_tied_parameters_and_shared_modules_count_once():
    model = nn.Module()
    model.embedding, model.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    model.head.weight = model.embedding.weight
    model.again = model.head
    assert sizes(model).parameters == 20
    assert payload_bytes(model) == 80


def test_non_persistent_buffers_are_no_payload():
    model = nn.Linear(2, 2)
    model.register_buffer("cache", torch.zeros(100), persistent=False)
    assert payload_bytes(model) == 6 * 4


def test_a_weight_masked_in_the_forward_pass_counts_as_the_layer_sees_it():
    class Masked(nn.Linear):
        @property
        def weight(self):
            return self._parameters["weight"] * torch.tensor([[1.0, 0.0]])

        @weight.setter
        def weight(self, value):
            self.register_parameter("weight", value)

    model = nn.Linear(2, 1, bias=False)
    model.weight.data.fill_(3.0)
    model.__class__ = Masked
    assert sizes(model).nonzero == 1


def test_nothing_left():
    model = nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert sizes(model).compression_ratio == math.inf
    assert sizes(nn.ReLU()).sparsity == 0.0


def test_float8_is_counted():
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([0.0, 1.0, -0.0]).to(torch.float8_e4m3fn), requires_grad=False)
    assert (sizes(model).nonzero, sizes(model).parameter_bytes) == (1, 3)


def test_meta_has_bytes_but_no_counts():
    model = nn.Linear(10, 10, device="meta")
    assert payload_bytes(model) == 440
    with pytest.raises(BadInput, match="'weight' is on the meta device"):
        sizes(model)


MOBILENET = 4.21e6
EXEMPT = 0.011  # share of its weights in the first convolution and the depthwise ones, which stay dense


@pytest.mark.parametrize(
    ("sparsity", "millions", "megabytes", "printed"),
    [(0.5, 2.13, 9.05, 9.04), (0.75, 1.09, 4.89, 4.88), (0.9, 0.46, 2.07, 2.07), (0.95, 0.25, 1.13, 1.13)],
)
def test_mobilenet_table_of_zhu_and_gupta(sparsity, millions, megabytes, printed):
    """Their NNZ column follows from the exemption, and their size column from that NNZ: as printed to 0.01 MB."""
    nonzero = round(MOBILENET * (EXEMPT + (1 - EXEMPT) * (1 - sparsity)) / 1e6, 2)
    assert nonzero == millions
    size = paper_bytes(int(MOBILENET), int(nonzero * 1e6)) / 1e6
    assert size == pytest.approx(megabytes, abs=0.005 + 1e-9)
    assert size == pytest.approx(printed, abs=0.01)


def test_the_cheaper_index_changes_at_a_quarter_kept():
    assert paper_bytes(800, 200) == 4 * 200 + 100  # both indices cost 100 bytes
    assert paper_bytes(800, 201) == 4 * 201 + 100  # bit mask
    assert paper_bytes(800, 199) == 4 * 199 + 99.5  # four bits a value


def test_the_dense_rival_is_the_narrowest_with_as_many_bytes():
    def net(width):
        return nn.Linear(width, width, bias=False)  # 4 w^2 bytes

    assert narrowest(net, [8, 2, 4], 64) == 4
    assert narrowest(net, [8, 2, 4], 65) == 8
    with pytest.raises(BadInput, match=r"257 bytes or more \(the largest has 256\)"):
        narrowest(net, [8, 2, 4], 257)
