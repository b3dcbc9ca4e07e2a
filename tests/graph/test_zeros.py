"""Sums over an axis whose zeroed indices are not zero: removal there is not masking, so the axis stays whole."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.graph import Graph, trace
from tests.graph.checking import Net, restless

Forward = Callable[[Net, Tensor], Tensor]


def features(q: Tensor) -> Tensor:
    return F.elu(q) + 1


FROZEN: dict[str, Forward] = {
    "a sum after a sigmoid": lambda n, t: n.a(t).sigmoid().sum(-1, keepdim=True),
    "a sum after an exponential": lambda n, t: (2 * n.a(t).exp()).sum(-1, keepdim=True),
    "a norm after an added constant": lambda n, t: (n.a(t) + 1).norm(dim=-1, keepdim=True),
    "a sum after an operand of one entry is added": lambda n, t: (n.a(t) + t[:, :1]).sum(-1, keepdim=True),
    "a quotient of a constant": lambda n, t: (1 / (n.a(t).square() + 1)).sum(-1, keepdim=True),
    "products of positive features": lambda n, t: features(n.a(t)) @ features(n.b(t)).T @ t,
    "streams that are one value repeated": lambda n, t: (t[:, :1].expand(-1, 5) * n.a(t).sigmoid()).sum(-1, keepdim=True),
}
FREE: dict[str, Forward] = {
    "a sum after relu": lambda n, t: n.a(t).relu().sum(-1, keepdim=True),
    "a gate": lambda n, t: (n.a(t).sigmoid() * n.b(t)).sum(-1, keepdim=True),
    "a quotient": lambda n, t: (n.a(t) / (n.b(t).square() + 1)).sum(-1, keepdim=True),
    "a bias": lambda n, t: (n.a(t) + n.c).sum(-1, keepdim=True),
    "columns after a sigmoid": lambda n, t: n.a(t).sigmoid() @ n.v,
    "a product with plain keys": lambda n, t: features(n.a(t)) @ n.b(t).T @ t,
    "a start of zeros": lambda n, t: (torch.zeros(len(t), 5, dtype=t.dtype) + n.a(t)).sum(-1, keepdim=True),
}


def network(forward: Forward) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    c, v = (torch.randn(*shape, generator=generator) for shape in ((5,), (5, 2)))
    return restless(Net(forward, a=nn.Linear(3, 5), b=nn.Linear(3, 5), c=c, v=v))


def example() -> Tensor:
    return torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def carriers(model: nn.Module) -> list[Tensor]:
    """The tensors whose first dimension is the axis of five."""
    return [tensor for tensor in model.parameters() if len(tensor) == 5]


def without_the_last(model: nn.Module) -> nn.Module:
    """A copy whose axis of five has four entries, in every tensor that has it."""
    model = copy.deepcopy(model)
    for tensor in carriers(model):
        tensor.data = tensor.data[:4]
    return model


def with_the_last_zero(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for tensor in carriers(model):
        tensor.data[4] = 0
    return model


def five(graph: Graph) -> list[str | None]:
    """Why each axis of five stays, ``None`` where it may go."""
    return [group.frozen for group in graph.groups if group.size == 5]


@pytest.mark.parametrize("name", FROZEN)
def test_a_sum_of_what_is_not_zero_freezes(name: str) -> None:
    graph = trace(network(FROZEN[name]), example())
    assert not [group for group in graph.prunable() if group.size == 5]
    assert any("has become something else" in (reason or "") for reason in five(graph))


@pytest.mark.parametrize("name", FREE)
def test_a_sum_of_zeros_does_not(name: str) -> None:
    assert [group.size for group in trace(network(FREE[name]), example()).prunable()] == [5]


@pytest.mark.parametrize("name", sorted(FROZEN.keys() | FREE.keys()))
def test_by_brute_force(name: str) -> None:
    """An entry removed and an entry at zero give the same exactly where the rule says so."""
    if "repeated" in name or "start" in name:
        pytest.skip("its code says how long the axis is")
    model = network({**FROZEN, **FREE}[name])
    with torch.no_grad():
        gap = float((without_the_last(model)(example()) - with_the_last_zero(model)(example())).abs().max())
    assert (gap < 1e-12) is (name in FREE)
