"""Which blocks go, and what is left of the costs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.measure import multiply_adds
from secateurs.planning.budgets import Budget
from secateurs.planning.choose_groups import Cutting
from secateurs.planning.depth import BlockCosts, choose_blocks, find_removable, frozen_blocks, skipping
from tests.planning.stacks import PICTURES, VECTORS, Pyramid, Stack

SCORES = {"steps": torch.tensor([2.0, 4.0, 5.0, 1.0, 3.0])}


def chosen(budget, include=(), exclude=(), cutting=None):
    model = Stack()
    lists = find_removable(model, VECTORS)
    costs = BlockCosts(model, lists, VECTORS)
    return choose_blocks(lists, SCORES, (include, exclude), cutting or Cutting(), budget, costs)


def test_blocks_that_change_the_shape_must_stay():
    first, second = find_removable(Pyramid(), PICTURES)
    assert (first.path, len(first.modules), first.fixed) == ("first", 4, {})
    assert second.fixed == {0: "makes (2, 6, 4, 4) of (2, 3, 8, 8)"} and second.forms == {1: 0, 2: 0}
    (frozen,) = frozen_blocks((first, second))
    assert (frozen.axis, frozen.operator) == ("second.0", "Stage")


@pytest.mark.parametrize(("ratio", "left"), [(0.2, [0, 1, 2, 4]), (0.4, [1, 2, 4]), (0.5, [1, 2]), (0.79, [2])])
def test_a_ratio_removes_the_lowest_scores(ratio, left):
    """Of five, 0.5 is 2.5 and rounds to 3."""
    assert chosen(Budget("ratio", ratio)) == {"steps": left}


def test_of_equal_scores_the_earlier_stays():
    model = Stack()
    lists = find_removable(model, VECTORS)
    equal = {"steps": torch.ones(5)}
    costs = BlockCosts(model, lists, VECTORS)
    assert choose_blocks(lists, equal, ((), ()), Cutting(), Budget("ratio", 0.4), costs) == {"steps": [0, 1, 2]}


def test_one_block_stays_and_more_is_refused():
    with pytest.raises(BadInput, match="5 blocks would go, and 4 can"):
        chosen(Budget("ratio", 0.95))
    with pytest.raises(BadInput, match="3 blocks would go, and 2 can"):
        chosen(Budget("ratio", 0.5), cutting=Cutting(least=3))


def test_named_blocks_go_and_others_are_spared():
    assert chosen(None, include=["steps.2", "steps.1"]) == {"steps": [0, 3, 4]}
    assert chosen(Budget("ratio", 0.5), exclude=["steps.3"]) == {"steps": [1, 2, 3]}


@pytest.mark.parametrize("name", ["params", "flops", "bytes"])
def test_a_budget_is_met_by_as_few_as_possible(name):
    """Brute force over how many of the lowest go."""
    model = Stack()
    lists = find_removable(model, VECTORS)
    costs = BlockCosts(model, lists, VECTORS)
    measure = {"params": costs.parameters, "flops": costs.multiply_adds, "bytes": costs.bytes}[name]
    for limit in range(measure({"steps": [2]}), measure({}) + 1, 7):
        left = choose_blocks(lists, SCORES, ((), ()), Cutting(), Budget(name, limit), costs)
        order = [3, 0, 4, 1]
        kept = ({"steps": sorted(set(range(5)) - set(order[:k]))} for k in range(5))
        assert measure(left) == next(measure(keep) for keep in kept if measure(keep) <= limit)


def test_costs_are_those_of_the_model_without_the_blocks():
    model = Stack()
    costs = BlockCosts(model, find_removable(model, VECTORS), VECTORS)
    for gone in itertools.combinations(range(5), 2):
        left = sorted(set(range(5)) - set(gone))
        smaller = Stack()
        smaller.steps = nn.ModuleList(smaller.steps[n] for n in left)
        found = costs({"steps": left})
        size = sum(p.numel() for p in smaller.parameters())
        assert (found.parameters, found.bytes) == (size, 4 * size)
        assert found.multiply_adds == multiply_adds(smaller, VECTORS).dense


def test_a_tensor_shared_with_what_stays_is_not_saved():
    model = Stack()
    model.steps[3].linear.weight = model.steps[0].linear.weight
    costs = BlockCosts(model, find_removable(model, VECTORS), VECTORS)
    assert costs({}).parameters - costs({"steps": [0, 1, 2, 4]}).parameters == 4


def test_skipping_is_over_when_it_ends():
    model = Stack()
    lists = find_removable(model, VECTORS)
    whole = model(VECTORS)
    with skipping(lists, {"steps": [0]}):
        assert not torch.equal(model(VECTORS), whole)
    assert torch.equal(model(VECTORS), whole) and "forward" not in vars(model.steps[3])


def test_scopes_of_several_lists():
    """Of four and two that may go, half: two and one by list; all of the first but one where it scores lowest over all."""
    model = Pyramid()
    lists = find_removable(model, PICTURES)
    scores = {"first": torch.tensor([1.0, 2, 3, 4]), "second": torch.tensor([0.0, 9, 8])}
    costs = BlockCosts(model, lists, PICTURES)
    half = Budget("ratio", 0.5)
    assert choose_blocks(lists, scores, ((), ()), Cutting(), half, costs) == {"first": [2, 3], "second": [0, 1]}
    assert choose_blocks(lists, scores, ((), ()), Cutting("global"), half, costs) == {"first": [3]}


def test_what_cannot_go_is_refused():
    with pytest.raises(BadInput, match=r"'steps.7' matches no block"):
        chosen(Budget("ratio", 0.2), include=["steps.7"])
    with pytest.raises(BadInput, match="leave no block"):
        chosen(Budget("ratio", 0.2), exclude=["steps"])
    with pytest.raises(BadInput, match="out of reach"):
        chosen(Budget("params", 3))
    with pytest.raises(BadInput, match="latency"):
        chosen(Budget("latency", 0.5))
    model = Pyramid()
    lists = find_removable(model, PICTURES)
    costs = BlockCosts(model, lists, PICTURES)
    with pytest.raises(BadInput, match=r"'second.0' cannot be left out: it makes"):
        choose_blocks(lists, {b.path: torch.ones(len(b.modules)) for b in lists}, (["second.0"], ()), Cutting(), None, costs)
    with pytest.raises(BadInput, match="no list of repeated blocks"):
        find_removable(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(1, 2))


class Pairs(nn.Module):
    """Blocks that return a second tensor, on which the next one builds."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Pair() for _ in range(3))

    def forward(self, x):
        y = x
        for block in self.blocks:
            x, y = block(x, y)
        return x


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x, y):
        return x + self.linear(y), y + 1


def test_blocks_that_return_more_than_the_stream_must_stay():
    with pytest.raises(BadInput, match="returns more than the stream"):
        find_removable(Pairs(), torch.ones(1, 2))
