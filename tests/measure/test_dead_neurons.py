"""Dead neurons on units one can count, and what pruning a negative weight does to them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.errors import BadInput
from secateurs.measure import dead_neurons

X = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])


def layer(rows: list[list[float]]) -> nn.Linear:
    found = nn.Linear(2, len(rows), bias=False)
    with torch.no_grad():
        found.weight.copy_(torch.tensor(rows))
    return found


def test_three_units_counted_by_hand() -> None:
    """Always on; always off; off for two of three examples (1 - 2 and 1 - 1)."""
    found = dead_neurons(nn.Sequential(layer([[1, 1], [-1, -1], [1, -1]]), nn.ReLU()), [X])
    assert (found.units, found.static) == (3, pytest.approx(1 / 3))
    assert found.dynamic == pytest.approx(2 / 9) and found.rate == pytest.approx(5 / 9)


def test_batches_of_any_size_and_form_add_up() -> None:
    model = nn.Sequential(layer([[1, 1], [-1, -1], [1, -1]]), nn.ReLU())
    whole = dead_neurons(model, [X])
    assert dead_neurons(model, [X[:1], (X[1:], torch.tensor([0, 1]))]) == whole
    assert dead_neurons(model, [{"input": X, "labels": torch.tensor([0])}]) == whole
    assert dead_neurons(model, [X], lambda m, batch: m(batch)) == whole


def test_every_call_counts_wherever_it_is_and_whatever_is_done_with_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu = layer([[1, 1], [-1, -1]]), nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.relu(self.first(x)))  # the same two units twice
            return x.add_(1).relu()  # and once more, none of them silent

    found = dead_neurons(Net(), [X])
    assert found.units == 6 and found.static == pytest.approx(2 / 6) and found.dynamic == 0


def test_positive_weights_on_positive_inputs_are_never_silent() -> None:
    assert dead_neurons(nn.Sequential(layer([[1, 2], [3, 0.5]]), nn.ReLU()), [X]).rate == 0


def test_masking_a_negative_weight_never_lowers_a_unit_with_positive_inputs() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 5)
    x = torch.rand(20, 6)
    before = net(x)
    for row, column in (net.weight < 0).nonzero().tolist():
        fewer = nn.Linear(6, 5)
        fewer.load_state_dict(net.state_dict())
        with torch.no_grad():
            fewer.weight[row, column] = 0
        assert bool((fewer(x) >= before).all())
        assert dead_neurons(nn.Sequential(fewer, nn.ReLU()), [x]).rate <= dead_neurons(nn.Sequential(net, nn.ReLU()), [x]).rate


def test_the_mode_and_the_parts_are_as_they_should_be() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = dead_neurons(model, [X])
    assert found.rate == pytest.approx(found.static + found.dynamic) and model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(BadInput, match="calls no ReLU"):
        dead_neurons(nn.Linear(2, 2), [X])
    with pytest.raises(BadInput, match="no batch"):
        dead_neurons(nn.Sequential(nn.ReLU()), [])
    with pytest.raises(BadInput, match="other ReLUs"):
        dead_neurons(nn.Sequential(nn.ReLU()), [X, X[:, :1]])
