"""Tensors, optimizers and averaged copies lose the same indices."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.apply import shrink, slice_optimizer, slice_tensors
from secateurs.apply.slicing import Cut, _cut, _remove_ragged, removed
from secateurs.errors import BadInput
from secateurs.graph import Group, Slice, trace
from tests.apply import shrinkable as nets

X = torch.randn(4, 2, 5, 5)


def prepared(make=nets.Pair, x=X, drop=2):
    model = make().eval()
    graph = trace(model, x)
    return model, graph, nets.keep(graph, drop=drop)


def test_state_dicts_and_averaged_copies():
    model, graph, keeps = prepared()
    shrunk = shrink(model, graph, keeps)
    for name, value in slice_tensors(graph, keeps, model.state_dict()).items():
        assert torch.equal(value, shrunk.model.state_dict()[name]), name
    average = torch.optim.swa_utils.AveragedModel(model)
    for name, value in slice_tensors(graph, keeps, average.module.state_dict()).items():
        assert torch.equal(value, shrunk.model.state_dict()[name]), name


def test_names_of_one_memory_stay_one():
    model, graph, keeps = prepared(nets.Tied, torch.arange(10).view(2, 5))
    small = slice_tensors(graph, keeps, model.state_dict())
    assert small["out.weight"].data_ptr() == small["words.weight"].data_ptr()
    other = {name: value.clone() for name, value in model.named_parameters()}  # moments are kept under the first name only
    assert slice_tensors(graph, keeps, other)["words.weight"].shape == small["words.weight"].shape


def test_a_tensor_of_another_shape_is_refused():
    _, graph, keeps = prepared()
    with pytest.raises(BadInput, match=r"'first.weight' has shape \(5, 2, 3, 3\)"):
        slice_tensors(graph, keeps, {"first.weight": torch.zeros(5, 2, 3, 3)})


def train(model, optimizer, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(4, 2, 5, 5, generator=generator), torch.randint(0, 3, (4,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


OPTIMIZERS = {
    "adam": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_goes_on_as_in_a_net_built_small(make):
    """The same tensors, moments and steps put into a network that was small from the start give the same trajectory."""
    model, graph, keeps = prepared()
    optimizer = make(model.parameters())
    train(model, optimizer, 3, seed=1)
    shrunk = shrink(model, graph, keeps).model
    moments = optimizer.state_dict()
    slice_optimizer(optimizer, graph, keeps, model, shrunk)

    small = nets.Pair(inner=4)
    small.second, small.head = nn.Conv2d(4, 2, 3, padding=1), nn.Linear(2, 3)
    small.load_state_dict(shrunk.state_dict())
    twin = make(small.parameters())
    names = [name for name, _ in model.named_parameters()]
    state = {i: {key: slice_tensors(graph, keeps, {names[i]: value})[names[i]].clone() if value.ndim else value.clone()
                 for key, value in entry.items() if torch.is_tensor(value)}
             for i, entry in moments["state"].items()}  # fmt: skip
    twin.load_state_dict({"state": state, "param_groups": twin.state_dict()["param_groups"]})

    assert [p is q for p, q in zip(optimizer.param_groups[0]["params"], shrunk.parameters(), strict=True)] == [True] * 8
    train(shrunk.eval(), optimizer, 4, seed=2)
    train(small.eval(), twin, 4, seed=2)
    for mine, theirs in zip(shrunk.parameters(), small.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_strange_optimizer_is_refused_whole():
    model, graph, keeps = prepared()
    shrunk = shrink(model, graph, keeps).model
    optimizer = torch.optim.Adam([*model.parameters(), nn.Parameter(torch.zeros(3))])
    before = copy.copy(optimizer.param_groups[0]["params"])
    with pytest.raises(BadInput, match="not in the dense model"):
        slice_optimizer(optimizer, graph, keeps, model, shrunk)
    assert optimizer.param_groups[0]["params"] == before or all(
        a is b for a, b in zip(optimizer.param_groups[0]["params"], before, strict=True)
    )


def test_factored_moments_are_refused():
    model, graph, keeps = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.first.weight] = {"row": torch.zeros(6)}
    with pytest.raises(BadInput, match="not that of the parameter"):
        slice_optimizer(optimizer, graph, keeps, model, shrink(model, graph, keeps).model)
    assert optimizer.param_groups[0]["params"][0] is model.first.weight


class TestRagged:
    """Two parents of three children each, which keep other children: counted out by hand."""

    def group(self, name, size, index, tensor="w", dim=0):
        return Group(name=name, size=size, slices=(Slice(tensor, dim, torch.tensor(index), "out"),))

    def test_on_one_dimension(self):
        parent = self.group("p", 2, [[0, 1, 2], [3, 4, 5]])
        child = self.group("c", 3, [[0, 3], [1, 4], [2, 5]])
        kept, what = torch.tensor([[0, 2], [1, 2]]), Cut()
        _remove_ragged(what, child.slices[0], removed(child, kept), parent, torch.arange(2), (6,))
        assert _cut(torch.arange(6) * 10, what, "w").tolist() == [0, 20, 40, 50]

    def test_on_two_dimensions(self):
        """A grouped convolution: rows are two groups of two, columns the three inputs within a group."""
        parent = self.group("p", 2, [[0, 1], [2, 3]])
        child = self.group("c", 3, [[0], [1], [2]], dim=1)
        kept, what = torch.tensor([[0, 2], [1, 2]]), Cut()
        _remove_ragged(what, child.slices[0], removed(child, kept), parent, torch.arange(2), (4, 3))
        weight = torch.arange(12).view(4, 3)
        assert _cut(weight, what, "w").tolist() == [[0, 2], [3, 5], [7, 8], [10, 11]]

    def test_with_a_parent_gone(self):
        parent = self.group("p", 2, [[0, 1], [2, 3]])
        child = self.group("c", 3, [[0], [1], [2]], dim=1)
        kept, what = torch.tensor([[1, 2]]), Cut()
        _remove_ragged(what, child.slices[0], removed(child, kept), parent, torch.tensor([1]), (4, 3))
        what.remove(0, torch.tensor([0, 1]), 4)
        assert _cut(torch.arange(12).view(4, 3), what, "w").tolist() == [[7, 8], [10, 11]]


def test_query_heads_may_differ_per_key_head():
    """A ragged child through the whole way: every key-value head keeps another of its two query heads."""
    model = nets.llama().eval()
    graph = trace(model, {"input_ids": torch.arange(10).view(2, 5)})
    child = next(g for g in graph.prunable() if g.parent is not None and g.size == 2 and g.kind == "heads")
    keeps = {child.name: torch.tensor([[0], [1], [0]])}
    shrunk = shrink(model, graph, keeps)
    layer = model.model.layers[0].self_attn
    heads = layer.q_proj.weight.view(6, 4, 24)[[0, 3, 4]].reshape(12, 24)
    assert torch.equal(shrunk.model.get_parameter("model.layers.0.self_attn.q_proj.weight"), heads)
    from secateurs.apply import verify_shrunk

    assert verify_shrunk(model, shrunk, graph, keeps).ok
