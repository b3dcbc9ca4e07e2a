"""Every operator that multiplies: the same count as running the model, dense and as a function of widths."""

import pytest
import torch
from torch import nn

from secateurs.graph import trace
from secateurs.measure import multiply_adds as counted
from secateurs.planning.multiply_adds import multiply_adds, operations


class Of(nn.Module):
    """A layer of 6 inputs, then what is under test."""

    def __init__(self, compute, *shape):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.other = nn.Parameter(torch.rand(*shape))
        self.compute = compute

    def forward(self, x):
        return self.compute(self.first(x), self.other)


def functional(compute, *shape):
    return lambda: (Of(compute, *shape), torch.rand(2, 5, 6))


def layer(make, *shape):
    return lambda: (make(), torch.rand(*shape))


class First(nn.Module):
    """The sequence that a recurrent layer gives, without its state."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


class Itself(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


OPERATORS = {
    "linear": layer(lambda: nn.Linear(4, 3), 2, 7, 4),
    "linear of a vector": layer(lambda: nn.Linear(4, 3), 4),
    "conv1d": layer(lambda: nn.Conv1d(3, 4, 3, padding=1), 2, 3, 9),
    "conv2d, strided and dilated": layer(lambda: nn.Conv2d(3, 4, 3, stride=2, dilation=2), 2, 3, 11, 9),
    "conv2d without a batch": layer(lambda: nn.Conv2d(3, 4, 3), 3, 8, 8),
    "conv3d": layer(lambda: nn.Conv3d(2, 3, 2), 1, 2, 4, 4, 4),
    "grouped": layer(lambda: nn.Conv2d(4, 8, 3, groups=2), 2, 4, 6, 6),
    "transposed": layer(lambda: nn.ConvTranspose2d(4, 3, 2, stride=2), 2, 4, 5, 5),
    "lstm": layer(lambda: First(nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)), 2, 7, 4),
    "gru": layer(lambda: First(nn.GRU(4, 5, batch_first=True)), 2, 7, 4),
    "multi-head attention": layer(Itself, 2, 5, 8),
    "matmul": functional(lambda x, w: x @ w, 8, 3),
    "bmm": functional(lambda x, w: torch.bmm(x, w), 2, 8, 4),
    "baddbmm": functional(lambda x, w: torch.baddbmm(torch.zeros(1), x, w), 2, 8, 4),
    "mm": functional(lambda x, w: torch.mm(x.reshape(10, 8), w), 8, 3),
    "addmm": functional(lambda x, w: torch.addmm(torch.zeros(1), x.reshape(10, 8), w), 8, 3),
    "einsum": functional(lambda x, w: torch.einsum("btd,de->bte", x, w), 8, 3),
    "einsum with dots": functional(lambda x, w: torch.einsum("...d,de->...e", x, w), 8, 3),
    "attention": functional(
        lambda x, w: nn.functional.scaled_dot_product_attention(x.unsqueeze(1), w[:, :, :, :8], w), 2, 1, 7, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_the_dense_count_is_the_measured_one(name):
    model, example = OPERATORS[name]()
    graph = trace(model.eval(), example)
    whole = {group.name: group.size for group in graph.groups}
    assert multiply_adds(graph, list(whole))(whole) == counted(model, example).dense > 0


def test_a_convolution_between_two_groups_is_their_product():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 1))
    graph = trace(model, torch.rand(2, 3, 7, 7))
    a, b = (group.name for group in graph.prunable())
    work = [operation.work.terms for operation in operations(graph, [a, b])]
    assert work == [{(a,): 3 * 2 * 49}, {(a, b): 9 * 2 * 25}, {(b,): 5 * 2 * 25}]


def test_a_group_that_is_not_named_is_constant():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))
    graph = trace(model, torch.rand(2, 3))
    assert multiply_adds(graph, []).terms == {(): 2 * (12 + 20)}
