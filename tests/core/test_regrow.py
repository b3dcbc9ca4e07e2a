"""Exchange of weights for dead ones: six weights one can check by eye, then what holds for all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.regrow import Regrowth, exchange
from secateurs.errors import NotFinite

WEIGHT = torch.tensor([0.5, -0.1, 0.0, 0.3, 0.0, 0.0])
MASK = torch.tensor([True, True, False, True, False, False])
GRADIENT = torch.tensor([9.0, 0.2, 0.1, 9.0, 0.7, 0.3])


def exchanged(count: int, growth: torch.Tensor = GRADIENT) -> tuple[list[int], list[int]]:
    mask, grown = exchange("w", WEIGHT, MASK, growth, count)
    return mask.nonzero().view(-1).tolist(), grown.nonzero().view(-1).tolist()


def test_the_smallest_go_and_the_largest_gradients_come() -> None:
    assert exchanged(0) == ([0, 1, 3], [])
    assert exchanged(1) == ([0, 3, 4], [4])  # -0.1 goes; 0.7 is the largest among 0.2 (just dropped), 0.1, 0.7 and 0.3
    assert exchanged(2) == ([0, 3, 4], [3, 4])  # 0.3 goes too and comes back: its gradient is the largest of all dead ones
    assert exchanged(3) == ([0, 3, 4], [0, 3, 4])


def test_of_equals_the_lower_index_stays_and_comes() -> None:
    mask, grown = exchange("w", torch.ones(6), MASK, torch.zeros(6), 1)
    assert mask.tolist() == [True, True, True, False, False, False]  # 3 goes, 2 comes
    assert grown.nonzero().view(-1).tolist() == [2]


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NotFinite, match="'w' has 1 non-finite"):
        exchanged(1, torch.tensor([0.0, 0.0, math.nan, 0.0, 0.0, 0.0]))


@given(st.integers(1, 60), st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_the_count_never_changes_and_brute_force_agrees(n: int, seed: int, density: float, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, growth = torch.randn(n, generator=generator), torch.rand(n, generator=generator)
    mask = torch.rand(n, generator=generator) < density
    count = int(share * int(mask.sum()))
    new, grown = exchange("w", weight, mask, growth, count)
    kept = sorted(mask.nonzero().view(-1).tolist(), key=lambda i: (-abs(float(weight[i])), i))
    staying = kept[: len(kept) - count]
    dead = sorted((i for i in range(n) if i not in staying), key=lambda i: (-float(growth[i]), i))
    assert sorted([*staying, *dead[:count]]) == new.nonzero().view(-1).tolist()
    assert sorted(dead[:count]) == grown.nonzero().view(-1).tolist()
    assert int(new.sum()) == int(mask.sum())


def test_when_and_how_many() -> None:
    regrowth = Regrowth(lambda step: 0.3, every=5, end=12)
    assert [step for step in range(20) if regrowth.due(step)] == [5, 10]
    assert [regrowth.count(5, kept) for kept in (0, 3, 4, 10)] == [0, 0, 1, 3]
    up = Regrowth(lambda step: 0.3, every=5, end=12, round_up=True)
    assert [up.count(5, kept) for kept in (0, 3, 4, 10)] == [0, 1, 2, 3]
    assert Regrowth(lambda step: 2.0, every=1, end=9).count(1, 4) == 4
