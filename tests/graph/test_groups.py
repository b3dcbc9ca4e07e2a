"""What a graph answers: positions and sizes under keeps, ragged children, names, reports, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.graph import Graph, trace
from tests.graph.checking import Net, differ, restless, run, tensors_of


def grouped() -> nn.Module:
    """Two groups of three channels in, two groups of five out."""
    return restless(nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 10, 1, groups=2), nn.ReLU(), nn.Conv2d(10, 4, 1)))


IMAGE = torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def heads() -> nn.Module:
    def forward(n: nn.Module, t: Tensor) -> Tensor:
        q, k, v = (p(t).view(2, 5, -1, 4).transpose(1, 2) for p in (n.q, n.k, n.v))
        return n.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))

    return restless(Net(forward, q=nn.Linear(3, 24), k=nn.Linear(3, 8), v=nn.Linear(3, 8), o=nn.Linear(24, 2)))


TOKENS = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("model", "example"), [(grouped(), IMAGE), (heads(), TOKENS)])
def test_a_ragged_child_may_be_shuffled_apart_for_every_parent(model: nn.Module, example: Tensor) -> None:
    """Within the first index of the parent only: nothing that lacks the parent can notice."""
    graph = trace(model, example)
    before = run(model, example)
    children = [group for group in graph.prunable() if group.parent]
    assert len(children) >= 2
    for child in children:
        parent = graph[child.parent or ""]
        twin = copy.deepcopy(model)
        held = tensors_of(twin)
        for member in child.slices:
            tensor = held[member.tensor]
            others = [s for s in parent.slices if s.tensor == member.tensor]
            with torch.no_grad():
                tensor.copy_(_shuffled_first(tensor, member.index, member.dim, [(s.dim, s.index[0]) for s in others]))
        assert differ(before, run(twin, example)) < 1e-10, child.name


def _shuffled_first(tensor: Tensor, index: Tensor, dim: int, parents: list[tuple[int, Tensor]]) -> Tensor:
    assert parents, "a carrier of the child without the parent"
    moved = tensor.index_copy(dim, index.roll(1, 0).flatten(), tensor.index_select(dim, index.flatten()))
    inside = torch.zeros(tensor.shape, dtype=torch.bool)
    for parent_dim, first in parents:
        inside |= torch.zeros_like(inside).index_fill(parent_dim, first, True)
    return torch.where(inside, moved, tensor)


def test_kept_positions() -> None:
    graph = trace(grouped(), IMAGE)
    rows = graph.types["p_0_weight"][0][0]
    whole, inside = "0.weight:0#0", "0.weight:0#1"
    assert graph.kept(rows, {inside: torch.tensor([0, 2])}).tolist() == [0, 2, 3, 5]
    assert graph.kept(rows, {whole: torch.tensor([1]), inside: torch.tensor([1])}).tolist() == [4]
    assert graph.kept(rows, {}).tolist() == list(range(6))
    ragged = {whole: torch.tensor([0, 1]), inside: torch.tensor([[0, 2], [1, 2]])}
    assert graph.kept(rows, ragged).tolist() == [0, 2, 4, 5]
    assert graph.shape("p_0_weight", ragged) == (4, 3, 1, 1)
    assert graph.shape("conv2d", ragged) == (1, 4, 4, 4)


def test_ragged_keeps_need_the_parent_beside_them() -> None:
    """The second convolution's columns carry a group's channels alone, so one index list cannot serve both groups."""
    graph = trace(grouped(), IMAGE)
    columns = graph.types["p_2_weight"][0][1]
    with pytest.raises(BadInput, match="does not lie in this dimension"):
        graph.kept(columns, {"0.weight:0#1": torch.tensor([[0, 2], [1, 2]])})


def test_ragged_keeps_need_a_parent() -> None:
    graph = trace(grouped(), IMAGE)
    with pytest.raises(BadInput, match="no parent"):
        graph.kept(graph.types["p_0_weight"][0][0], {"0.weight:0#0": torch.tensor([[0], [1]])})


def test_every_dimension_is_in_one_group_or_fixed() -> None:
    graph = trace(grouped(), IMAGE)
    assert [group.name for group in graph.groups if group.frozen] == ["0.weight:1", "4.weight:0"]
    assert {group.frozen for group in graph.groups if group.frozen} == {"an input of the model", "the model returns it"}
    covered: dict[tuple[str, int], int] = {}
    for group in graph.groups:
        for member in group.slices:
            key = (member.tensor, member.dim)
            covered[key] = covered.get(key, 1) * group.size
    assert covered == {
        ("0.weight", 0): 6, ("0.weight", 1): 3, ("0.bias", 0): 6, ("2.weight", 0): 10, ("2.weight", 1): 3, ("2.bias", 0): 10,
        ("4.weight", 0): 4, ("4.weight", 1): 10, ("4.bias", 0): 4,
    }  # fmt: skip


def test_roles_in_model_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1))
    members = trace(model, IMAGE.float())["0.weight:0"].slices
    assert [(m.tensor, m.dim, m.role) for m in members] == [
        ("0.weight", 0, "out"), ("0.bias", 0, "bias"), ("1.weight", 0, "norm"), ("1.bias", 0, "norm"), ("2.weight", 1, "in"),
        ("1.running_mean", 0, "buffer"), ("1.running_var", 0, "buffer"),
    ]  # fmt: skip


def test_an_unknown_group_is_named_with_near_ones() -> None:
    graph: Graph = trace(grouped(), IMAGE)
    with pytest.raises(BadInput, match=r"no group '0\.weight:2'.*did you mean '0\.weight:1'"):
        graph["0.weight:2"]


def test_tracing_twice_gives_the_same_groups() -> None:
    first, second = (trace(heads(), TOKENS) for _ in range(2))
    assert [(g.name, g.size, g.kind, g.signature, g.parent) for g in first.groups] == [
        (g.name, g.size, g.kind, g.signature, g.parent) for g in second.groups
    ]
