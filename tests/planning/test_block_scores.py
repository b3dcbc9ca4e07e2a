"""Groups judged by what their consumers lose: against brute force, ragged ones too."""

import pytest
import torch

from secateurs.core.criteria import Criterion
from secateurs.errors import BadInput
from secateurs.graph.groups import Group, Slice
from secateurs.planning.block_scores import consumers, score_blocks
from secateurs.planning.group_scores import Scoring


def squares(matrix, gram, blocks):
    """The norm of a block's columns, weighed by the diagonal: what is easy to do by hand."""
    weighed = matrix.square() * gram.diagonal()
    return weighed[:, blocks].sum((0, 2))


SCORING = Scoring(Criterion("squares", frozenset({"gram"}), lambda w, s: w, squares))


def group(name, slices, **more):
    return Group(name, len(slices[0].index), tuple(slices), **more)


def each(size, per=1):
    return torch.arange(size * per).view(size, per)


def supply(grams):
    return lambda name: {"gram": grams[name]} if name in grams else None


def test_a_channel_costs_its_columns_in_every_consumer():
    g = group("a:0", [Slice("a", 0, each(2), "out"), Slice("b", 1, each(2), "in"), Slice("c", 1, each(2, 2), "in")])
    tensors = {"a": torch.full((2, 3), 99.0), "b": torch.tensor([[1.0, 2], [0, 1]]), "c": torch.tensor([[1.0, 1, 3, 0]])}
    grams = {"b": torch.eye(2)[None], "c": torch.diag(torch.tensor([1.0, 10, 1, 1]))[None]}
    found = score_blocks([g], tensors, SCORING, supply(grams))
    assert found["a:0"].tolist() == [1 + 11, 5 + 9] and found["a:0"].dtype == torch.float64
    assert consumers([g]) == {"b", "c"}


def test_a_kernel_belongs_to_its_channel_and_a_transposed_layout_reads_rows():
    conv = torch.arange(8.0).view(1, 2, 2, 2)
    g = group("a:0", [Slice("conv", 1, each(2), "in")])
    assert score_blocks([g], {"conv": conv}, SCORING, supply({"conv": torch.eye(8)[None]}))["a:0"].tolist() == [14, 126]
    g = group("a:0", [Slice("w", 0, each(2), "in")])  # [in, out]
    found = score_blocks([g], {"w": torch.tensor([[1.0, 2], [3, 0]])}, SCORING, supply({"w": torch.eye(2)[None]}))
    assert found["a:0"].tolist() == [5, 9]


def test_the_groups_of_a_convolution_are_parts():
    """Two groups of two channels; as a ragged child every group has costs of its own, else they are added up."""
    weight = torch.tensor([[1.0, 2], [3, 4]]).view(2, 2, 1)
    grams = {"w": torch.stack([torch.eye(2), 10 * torch.eye(2)])}
    parent = group("w:0", [Slice("w", 0, each(2), "out")])
    child = group("x:0", [Slice("w", 1, each(2), "in")], parent="w:0")
    alone = group("x:0", [Slice("w", 1, each(2), "in")])
    assert score_blocks([child], {"w": weight}, SCORING, supply(grams), {"w:0": parent})["x:0"].tolist() == [[1, 4], [90, 160]]
    assert score_blocks([alone], {"w": weight}, SCORING, supply(grams))["x:0"].tolist() == [91, 164]


def test_the_query_heads_of_a_key_value_head_are_judged_apart():
    """Columns kv x rep x dim = 2 x 2 x 2: index r of the child inside index k of the parent is k * 4 + r * 2 and the next."""
    flat = torch.arange(8).view(2, 2, 2)
    parent = group("k:0", [Slice("o", 1, flat.flatten(1), "in")])
    child = group("q:0", [Slice("o", 1, flat.transpose(0, 1).flatten(1), "in")], parent="k:0")
    found = score_blocks([child], {"o": torch.arange(8.0)[None]}, SCORING, supply({"o": torch.eye(8)[None]}), {"k:0": parent})
    assert found["q:0"].tolist() == [[1, 13], [41, 85]]


def test_a_group_nobody_judges_is_refused():
    g = group("a:0", [Slice("a", 0, each(2), "out"), Slice("lstm", 1, each(2), "in")])
    with pytest.raises(BadInput, match="judges the layers that read 'a:0', and none is a linear layer"):
        score_blocks([g], {"lstm": torch.ones(8, 2)}, SCORING, supply({}))
