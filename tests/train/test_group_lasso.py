"""The penalty on groups, by hand numbers on a layer of three neurons."""

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, NotFinite
from secateurs.graph.groups import Group, Slice
from secateurs.train.group_lasso import GroupLasso, importances, strengths

ROWS = torch.arange(3)[:, None]


class Net(nn.Module):
    """Neurons 0, 1 and 2: rows (3, 0), (0, 0), (0, 0), scales 0, 1, 5, columns 4, 0, 12: norms 5, 1, 13."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[3.0, 0], [0, 0], [0, 0]]))
            self.norm.weight.copy_(torch.tensor([0.0, 1, 5]))
            self.second.weight.copy_(torch.tensor([[4.0, 0, 12]]))

    def forward(self, x):
        return self.second(torch.relu(self.norm(self.first(x))))


def neurons(**more):
    slices = (Slice("first.weight", 0, ROWS, "out"), Slice("first.bias", 0, ROWS, "bias"),
              Slice("norm.weight", 0, ROWS, "norm"), Slice("norm.bias", 0, ROWS, "norm"),
              Slice("norm.running_mean", 0, ROWS, "buffer"), Slice("second.weight", 1, ROWS, "in"))  # fmt: skip
    return Group("first.weight:0", 3, slices, **more)


def zeroed(model):
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model


def test_the_norm_of_an_index_spans_rows_columns_and_scales():
    assert importances(neurons(), dict(Net().named_parameters())).tolist() == [5, 1, 13]


def test_the_strengths_are_those_of_the_paper():
    """2^(4 (13 - I) / 12) for I = 5, 1, 13."""
    torch.testing.assert_close(strengths(torch.tensor([5.0, 1, 13])), torch.tensor([2 ** (8 / 3), 16, 1]))
    assert strengths(torch.tensor([2.0, 2.0])).tolist() == [1, 1]
    torch.testing.assert_close(strengths(torch.tensor([0.0, 1.0]), 2), torch.tensor([4.0, 1.0]))


def test_every_member_gets_its_share_and_nothing_else_does():
    model = zeroed(Net())
    penalty = GroupLasso(model, [neurons()], reg=0.5)
    penalty.add()
    gamma = 2 ** (8 / 3)
    torch.testing.assert_close(model.first.weight.grad, torch.tensor([[0.5 * gamma * 3, 0], [0, 0], [0, 0]]))
    torch.testing.assert_close(model.norm.weight.grad, torch.tensor([0, 0.5 * 16 * 1, 0.5 * 1 * 5]))
    torch.testing.assert_close(model.second.weight.grad, torch.tensor([[0.5 * gamma * 4, 0, 0.5 * 12]]))
    for left_out in (model.first.bias, model.norm.bias, model.second.bias):
        assert left_out.grad.eq(0).all()


def test_it_is_added_to_what_the_task_says():
    model = Net()
    model(torch.randn(8, 2)).square().sum().backward()
    before = model.second.weight.grad.clone()
    GroupLasso(model, [neurons()], reg=1.0).add()
    torch.testing.assert_close(model.second.weight.grad - before, torch.tensor([[2 ** (8 / 3) * 4, 0, 12]]))


def test_strengths_stay_until_they_are_refreshed():
    model = zeroed(Net())
    penalty = GroupLasso(model, [neurons()])
    before = penalty.strengths["first.weight:0"].clone()
    with torch.no_grad():
        model.second.weight.copy_(torch.tensor([[40.0, 0, 12]]))
    assert torch.equal(penalty.strengths["first.weight:0"], before)
    penalty.refresh()
    assert penalty.strengths["first.weight:0"].argmin() == 0


def test_several_positions_of_an_index_and_two_groups_of_a_weight():
    """Behind a flatten an index has two columns; a weight's entry is penalised by its row and by its column."""
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 2]]))
    zeroed(model)
    inputs = Group("inputs", 2, (Slice("0.weight", 1, torch.tensor([[0, 1], [2, 3]]), "in"),))
    outputs = Group("outputs", 2, (Slice("0.weight", 0, torch.tensor([[0], [1]]), "out"),))
    penalty = GroupLasso(model, [inputs, outputs], reg=1.0)
    assert importances(inputs, dict(model.named_parameters())).tolist() == [1, 2]
    penalty.add()
    assert model[0].weight.grad.tolist() == [[32, 0, 0, 0], [0, 0, 0, 4]]  # 1 * (16 + 16), 2 * (1 + 1)


def test_frozen_groups_and_missing_gradients_are_left_alone():
    model = Net()
    GroupLasso(model, [neurons(), neurons(frozen="the model's output")]).add()
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(BadInput, match="nothing to penalise"):
        GroupLasso(model, [neurons(frozen="the model's output")])


def test_it_separates_what_matters_from_what_does_not():
    """With no task at all the weak neuron's weights shrink fastest, as their strength is greatest."""
    model = Net()
    with torch.no_grad():
        model.first.weight.copy_(torch.tensor([1.0, 2, 3]).view(-1, 1))
        for parameter in (model.norm.weight, model.second.weight):
            parameter.copy_(torch.tensor([1.0, 2, 3]))
    penalty, start = GroupLasso(model, [neurons()], reg=0.1), model.second.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        zeroed(model)
        penalty.add()
        optimizer.step()
    left = (model.second.weight.detach() / start)[0]
    assert left[0] < left[1] < left[2] < 1


def test_half_precision_norms_do_not_overflow():
    model = nn.Sequential(nn.Linear(1, 2, bias=False)).half()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[400.0], [300.0]]))
    group = Group("0.weight:0", 2, (Slice("0.weight", 0, torch.tensor([[0], [1]]), "out"),))
    assert importances(group, dict(model.named_parameters())).tolist() == [400, 300]


@pytest.mark.parametrize("settings", [{"reg": -1.0}, {"alpha": float("inf")}, {"reg": float("nan")}])
def test_settings_that_cannot_work(settings):
    with pytest.raises(BadInput, match=next(iter(settings))):
        GroupLasso(Net(), [neurons()], **settings)


def test_weights_that_are_not_finite():
    model = Net()
    penalty = GroupLasso(model, [neurons()])
    before = penalty.strengths["first.weight:0"]
    with torch.no_grad():
        model.norm.weight[1] = float("nan")
    with pytest.raises(NotFinite, match=r"first\.weight:0"):
        penalty.refresh()
    assert penalty.strengths["first.weight:0"] is before


def test_groups_of_another_model_are_refused():
    with pytest.raises(BadInput, match=r"first\.weight"):
        GroupLasso(nn.ModuleDict({"first": nn.Linear(2, 2)}), [neurons()])
