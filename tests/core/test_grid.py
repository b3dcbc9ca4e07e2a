"""Min-max grids by eye."""

import pytest
import torch

from secateurs.core.grid import Grid
from secateurs.errors import BadInput


def test_a_grid_by_eye():
    grid = Grid.fit(torch.tensor([[-1.0, 2.0, 0.3], [3.0, 1.5, 2.0], [-15.0, -1.0, -2.0]]), 4)
    assert grid.levels == 15 and grid.step.tolist() == pytest.approx([0.2, 0.2, 1.0])
    assert grid.zero.tolist() == [5, 0, 15]  # every range contains 0
    assert grid.round(torch.tensor([0.29, 0.29, 0.29])).tolist() == pytest.approx([0.2, 0.2, 0.0])
    assert grid.codes(torch.tensor([9.0, -9.0, -4.6])).tolist() == [15, 0, 10]  # clamped; -5


@pytest.mark.parametrize("bits", [4, 8])
def test_the_ends_and_zero_are_on_the_grid_and_nothing_is_further_than_half_a_step(bits):
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = Grid.fit(weight, bits)
    rounded = grid.round(weight.T).T
    assert ((rounded - weight).abs() <= 0.5001 * grid.step[:, None] + grid.step[:, None] / 2).all()
    inside = (weight > weight.amin(1, keepdim=True)) & (weight < weight.amax(1, keepdim=True))
    assert ((rounded - weight).abs() <= 0.5001 * grid.step[:, None])[inside].float().mean() > 0.99
    assert torch.equal(grid.round(rounded.T).T, rounded)
    assert not grid.round(torch.zeros(6, dtype=torch.float64)).any()


def test_a_row_of_zeros_stays_zero():
    assert Grid.fit(torch.zeros(2, 3), 4).round(torch.zeros(3, 2)).tolist() == [[0.0, 0.0]] * 3


def test_other_bits_are_refused():
    for bits in (3, 16, True, 0):
        with pytest.raises(BadInput, match=f"bits={bits}: weights are rounded to 4 or 8 bits"):
            Grid.fit(torch.ones(1, 2), bits)
