"""Scores of groups: six-weight layers, every reduction and normalisation by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from secateurs.core.group_scores import NORMALISERS, normalise, reduce_members, slice_sums, table_sums
from secateurs.errors import BadInput

ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 5.0]])


def own(size: int) -> torch.Tensor:
    return torch.arange(size)[:, None]


def test_squares_are_summed_without_a_root():
    assert slice_sums(ROWS, 0, own(3), 2).tolist() == [5.0, 25.0, 25.0]
    assert slice_sums(ROWS, 1, own(2), 2).tolist() == [10.0, 45.0]
    assert slice_sums(ROWS, 0, own(3), 1).tolist() == [3.0, 7.0, 5.0]


def test_an_index_of_several_positions_has_the_sum_of_all():
    fused = torch.tensor([[1.0], [2.0], [3.0], [4.0]])  # two heads of two rows
    assert slice_sums(fused, 0, torch.tensor([[0, 1], [2, 3]]), 2).tolist() == [5.0, 25.0]
    assert slice_sums(fused, 0, torch.tensor([[0, 2], [1, 3]]), 2).tolist() == [10.0, 20.0]


def test_what_ranks_zeros_below_others_counts_as_zero():
    assert slice_sums(torch.tensor([[-0.5, 2.0], [-1.0, -1.0]]), 0, own(2), 1).tolist() == [2.0, 0.0]


def test_sixteen_bit_scores_are_summed_in_double():
    many = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    assert slice_sums(many, 0, own(1), 2).tolist() == [4096.0]  # bfloat16 itself would stop at 256


def test_a_ragged_childs_table_on_another_dimension():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])  # two groups of two rows, two columns each
    table = table_sums(weight, (0, torch.tensor([[0, 1], [2, 3]])), (1, own(2)), 1)
    assert table.tolist() == [[4.0, 6.0], [12.0, 14.0]]
    turned = table_sums(weight.T, (1, torch.tensor([[0, 1], [2, 3]])), (0, own(2)), 1)
    assert turned.tolist() == table.tolist()


def test_a_ragged_childs_table_on_the_same_dimension():
    rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])  # parent 2 x child 3
    parent, child = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[0, 3], [1, 4], [2, 5]])
    assert table_sums(rows, (0, parent), (0, child), 1).tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_reductions_over_members():
    members = [torch.tensor([1.0, 9.0]), torch.tensor([3.0, 7.0])]
    assert reduce_members(members, "mean").tolist() == [2.0, 8.0]  # over two tensors, whatever their sizes
    assert reduce_members(members, "sum").tolist() == [4.0, 16.0]
    assert reduce_members(members, "max").tolist() == [3.0, 9.0]
    assert reduce_members(members, "l2").tolist() == [2.0, 4.0]


def test_normalisations():
    scores = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    assert normalise(scores, "none").tolist() == [1.0, 2.0, 5.0]
    assert normalise(scores, "mean").tolist() == pytest.approx([3 / 8, 6 / 8, 15 / 8])
    assert normalise(scores, "sum").tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert normalise(scores, "max").tolist() == pytest.approx([0.2, 0.4, 1.0])
    assert normalise(scores, "minmax").tolist() == pytest.approx([0.0, 0.25, 1.0])
    deviation = math.sqrt(((5 / 3) ** 2 + (2 / 3) ** 2 + (7 / 3) ** 2) / 3)
    assert normalise(scores, "gaussian").tolist() == pytest.approx([-5 / 3 / deviation, -2 / 3 / deviation, 7 / 3 / deviation])
    assert normalise(scores.flip(0), "lamp").tolist() == pytest.approx([1.0, 2 / 7, 1 / 8])


def test_equal_scores_under_lamp_keep_the_earlier():
    assert normalise(torch.tensor([2.0, 2.0], dtype=torch.float64), "lamp").tolist() == [1.0, 0.5]


@pytest.mark.parametrize("how", ["mean", "sum", "max", "minmax", "gaussian", "lamp"])
def test_nothing_to_divide_by_gives_zeros(how):
    assert normalise(torch.zeros(3, dtype=torch.float64), how).tolist() == [0.0, 0.0, 0.0]


def test_a_table_is_normalised_as_a_whole():
    assert normalise(torch.tensor([[1.0, 1.0], [3.0, 3.0]]), "mean").tolist() == [[0.5, 0.5], [1.5, 1.5]]


@given(arrays.arrays("float64", st.integers(1, 12), elements=st.integers(0, 50).map(float)), st.sampled_from(list(NORMALISERS)))
def test_the_order_inside_a_group_stays(values, how):
    scores = torch.from_numpy(values)
    found = normalise(scores, how)
    ascending = scores.sort(stable=True).indices
    steps = found[ascending].diff() + 1e-12
    distinct = scores[ascending].diff() > 0  # equal scores may come apart (lamp), different ones may not change places
    assert bool((steps[distinct] > 0).all())


def test_bad_words_are_quoted():
    with pytest.raises(BadInput, match=r"aggregate='average'.*mean"):
        reduce_members([ROWS[0]], "average")
    with pytest.raises(BadInput, match=r"normalize='meann'.*did you mean 'mean'"):
        normalise(ROWS[0], "meann")
    with pytest.raises(BadInput, match="without a scored member"):
        reduce_members([])
