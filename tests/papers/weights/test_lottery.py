"""Lottery tickets: the published numbers of weights, and the option for the output layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.in_rounds import cumulative_share
from secateurs.errors import BadInput


class LeNet(nn.Sequential):
    """784-300-100-10: 235,200 + 30,000 + 1,000 weights."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def kept_by_round(rounds: int) -> list[int]:
    """Of untrained weights: with a learning rate of 0 a round changes nothing but the masks."""
    torch.manual_seed(0)
    model = LeNet()
    found = sc.Rounds(model, "lottery", sparsity=1 - 0.8**rounds, rounds=rounds, options={"output": 0.5})
    for each in found:
        each.attach(torch.optim.SGD(model.parameters(), 0.0))
    return [row["kept"] for row in found.report()]


def test_what_remains_of_lenet_is_what_the_paper_says() -> None:
    """(265,200 * 0.8^j + 1,000 * 0.9^j) / 266,200 is 51.3, 21.1, 13.5 and 3.6 % at j = 3, 7, 9 and 15."""
    kept = kept_by_round(15)
    for j, count in enumerate(kept):
        assert abs(count - (265_200 * 0.8**j + 1_000 * 0.9**j)) <= 1.5  # three layers, each rounded
    shares = [f"{100 * kept[j] / 266_200:.1f}" for j in (3, 7, 9, 15)]
    assert shares == ["51.3", "21.1", "13.5", "3.6"]


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.0])
def test_the_share_of_a_round(rate: float) -> None:
    """1 - (1 - rate p)^j with p = 1 - (1 - P)^(1 / n), by taking it round after round."""
    p, left = 1 - 0.1 ** (1 / 5), 1.0
    for j in range(1, 6):
        left *= 1 - rate * p
        assert cumulative_share(0.9, j, 5, rate) == pytest.approx(1 - left)
    assert cumulative_share(0.9, 5, 5) == 0.9  # the very number that was asked for


def test_the_output_layer_may_stay_dense() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 4))
    rounds = sc.Rounds(model, "lottery", sparsity=0.5, rounds=1, options={"output": 0.0})
    for each in rounds:
        each.attach(torch.optim.SGD(model.parameters(), 0.0))
    assert rounds.masks.kept() == {"0.weight": 50, "1.weight": 40}
    with pytest.raises(BadInput, match=r"option output=1.5 of 'lottery': give a number from 0 to 1"):
        sc.Rounds(model, "lottery", sparsity=0.5, options={"output": 1.5})
