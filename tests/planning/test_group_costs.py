"""Predicted parameters, multiply-adds and bytes: from slices by hand, and equal to what is counted on the model."""

import pytest
import torch

from secateurs.errors import BadInput
from secateurs.graph import trace
from secateurs.graph.groups import Group, Slice
from secateurs.measure import multiply_adds as counted
from secateurs.measure import sizes
from secateurs.planning.group_costs import Costs, dimension_lengths, tensor_entries
from secateurs.planning.multiply_adds import multiply_adds, operations
from tests.planning.nets import NETS, SEQUENCES, Attention


def group(name, size, *slices):
    return Group(name, size, tuple(slices))


def piece(tensor, dim, index, role="out"):
    return Slice(tensor, dim, torch.tensor(index), role)


def test_a_dimension_of_heads_times_dimensions():
    """Six rows, two heads of three: the length is their product; a concatenated rest of two stays."""
    heads = group("h", 2, piece("w", 0, [[0, 1, 2], [3, 4, 5]]))
    dims = group("d", 3, piece("w", 0, [[0, 3], [1, 4], [2, 5]]))
    length = dimension_lengths(8, [(heads, heads.slices[0]), (dims, dims.slices[0])])
    assert length.terms == {("d", "h"): 1, (): 2}
    assert length({"h": 2, "d": 3}) == 8 and length({"h": 1, "d": 2}) == 4


def test_rotary_halves_are_two_positions_of_one_index():
    pairs = group("p", 2, piece("w", 0, [[0, 2], [1, 3]]))
    assert dimension_lengths(4, [(pairs, pairs.slices[0])]).terms == {("p",): 2}


def test_a_dimension_without_groups_is_constant():
    assert dimension_lengths(7, []).terms == {(): 7}
    assert dimension_lengths(0, [])({}) == 0


def test_groups_that_do_not_divide_a_dimension_are_refused():
    heads, dims = group("h", 2, piece("w", 0, [[0, 1], [2, 3]])), group("d", 3, piece("w", 0, [[0], [1], [2]]))
    with pytest.raises(BadInput, match="not whole"):
        dimension_lengths(4, [(heads, heads.slices[0]), (dims, dims.slices[0])])


def test_a_tensor_that_carries_a_group_twice_is_squared():
    channels = group("c", 4, piece("w", 0, [[0], [1], [2], [3]]), piece("w", 1, [[0], [1], [2], [3]], "in"))
    entries = tensor_entries({"w": torch.empty(4, 4, 3, 3)}, [channels])
    assert entries["w"].terms == {("c", "c"): 9}


@pytest.mark.parametrize("net", NETS)
def test_dense_predictions_are_the_counts(net):
    build, example = NETS[net]
    model, graph = build().eval(), trace(build().eval(), example)
    groups = graph.prunable()
    costs = Costs.of(model, groups, multiply_adds(graph, [g.name for g in groups]))
    size = sizes(model)
    assert costs().parameters == size.parameters and costs().bytes == size.dense_bytes
    assert costs().multiply_adds == counted(model, example).dense


def test_attention_costs_heads_times_dimensions():
    """Queries and keys share a head dimension, values have their own: scores cost H T T D, their sum H T T Dv."""
    graph = trace(Attention().eval(), SEQUENCES)
    heads, dims, values = (g.name for g in graph.prunable() if g.kind in ("heads", "head-dims"))
    (mixed,) = [o for o in operations(graph, [heads, dims, values]) if "attention" in str(o.node.target)]
    assert mixed.work.terms == {(heads, dims): 2 * 5 * 5, (heads, values): 2 * 5 * 5}
