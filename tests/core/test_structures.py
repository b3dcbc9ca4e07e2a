"""Structures: what may leave together, by eye and against brute force."""

import pytest
import torch

from secateurs.core.layout import Layout
from secateurs.core.select import keep_mask, keep_mask_grouped
from secateurs.core.structures import NM, Block, Element, PerRow, Rows, parse_structure
from secateurs.errors import BadInput

OUT_IN, IN_OUT = Layout(), Layout(out_dim=1, in_dim=0)
WEIGHTS = {
    "linear": ((6, 8), OUT_IN),
    "gpt-2 linear": ((8, 6), IN_OUT),
    "conv1x1": ((6, 8, 1, 1), OUT_IN),
    "conv3x3": ((6, 8, 3, 3), OUT_IN),
    "conv1d": ((4, 8, 5), OUT_IN),
    "transposed conv": ((8, 6, 3, 2), IN_OUT),
    "experts": ((3, 6, 8), Layout(out_dim=1, in_dim=2)),
    "experts turned": ((3, 8, 6), Layout(out_dim=2, in_dim=1)),
}
STRUCTURES = [Element(), PerRow(), NM(2, 4), NM(2, 3, pad=True), Block(2, 4), Block(4, 3), Rows()]


def prune(structure, scores, layout, remove):
    groups = structure.to_groups(scores, layout)
    kept = keep_mask(groups, remove) if len(groups) == 1 else keep_mask_grouped(groups, remove)
    return structure.to_mask(kept, scores.shape, layout)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: f"{type(s).__name__} {s.name}")
def test_groups_and_masks_undo_each_other(weight, structure):
    """A mask that keeps unit u is exactly the entries whose score the unit u is made of."""
    shape, layout = WEIGHTS[weight]
    structure.check(weight, torch.Size(shape), layout)
    scores = torch.ones(shape, dtype=torch.float64)
    groups = structure.to_groups(scores, layout)
    mask = structure.to_mask(torch.ones(groups.shape, dtype=torch.bool), torch.Size(shape), layout)
    assert mask.shape == shape and mask.all() and mask.is_contiguous()
    for unit in range(0, groups.numel(), 1 + groups.numel() // 12):
        one = torch.zeros(groups.numel(), dtype=torch.bool)
        one[unit] = True
        mask = structure.to_mask(one.view(groups.shape), torch.Size(shape), layout)
        touched = structure.to_groups(mask.double(), layout).flatten()
        assert (touched > 0).nonzero().flatten().tolist() == ([unit] if mask.any() else [])  # none: a unit of padding
        assert int(mask.sum()) <= structure.unit_size(torch.Size(shape), layout)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: f"{type(s).__name__} {s.name}")
def test_units_are_counted(weight, structure):
    shape, layout = WEIGHTS[weight]
    groups = structure.to_groups(torch.ones(shape), layout)
    assert int((groups > 0).sum()) == structure.units(torch.Size(shape), layout)  # padding scores are negative
    assert structure.grouped == (len(groups) > 1)


def test_two_of_four_by_eye():
    scores = torch.tensor([[4.0, 1, 3, 2, 1, 1, 1, 1], [0.0, 0, 0, 9, 5, 6, 7, 8]])
    mask = prune(NM(2, 4), scores, OUT_IN, 2)
    assert mask.int().tolist() == [[1, 0, 1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 0, 0, 1, 1]]


def test_two_of_four_of_a_turned_matrix_runs_down_its_columns():
    scores = torch.tensor([[4.0, 1, 3, 2, 1, 1, 1, 1], [0.0, 0, 0, 9, 5, 6, 7, 8]])
    assert torch.equal(prune(NM(2, 4), scores.T.contiguous(), IN_OUT, 2), prune(NM(2, 4), scores, OUT_IN, 2).T)


def test_in_a_convolution_a_group_is_four_input_channels_at_one_tap():
    scores = torch.rand(2, 8, 3, 3)
    mask = prune(NM(2, 4), scores, OUT_IN, 2)
    for out in range(2):
        for y in range(3):
            for x in range(3):
                for start in (0, 4):
                    here = scores[out, start : start + 4, y, x]
                    assert torch.equal(mask[out, start : start + 4, y, x], here >= here.sort().values[2])


def test_a_short_group_counts_as_filled_up_with_removed_weights():
    scores = torch.tensor([[1.0, 2, 3, 4, 9, 8, 7], [4.0, 3, 2, 1, -1, -2, -3]])
    kept = prune(NM(2, 4, pad=True), scores, OUT_IN, 2)
    assert kept.int().tolist() == [[0, 0, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 1, 0]]  # three left of four: two of them stay
    lowest = torch.full((1, 5), torch.finfo(torch.float32).min)
    assert prune(NM(2, 4, pad=True), lowest, OUT_IN, 2).int().tolist() == [[1, 1, 0, 0, 1]]  # one left of four: it stays
    assert NM(2, 4, pad=True).name == "2:4:pad"


def test_a_width_that_does_not_divide_is_named_with_the_remedy():
    with pytest.raises(BadInput) as error:
        NM(2, 4).check("fc.weight", torch.Size((10, 7)), OUT_IN)
    assert "structure '2:4' does not fit 'fc.weight' of shape (10, 7): its input dimension 7 is not a multiple of 4" in str(
        error.value
    )
    assert "'2:4:pad'" in str(error.value)
    NM(2, 4, pad=True).check("fc.weight", torch.Size((10, 7)), OUT_IN)
    NM(2, 4).check("fc.weight", torch.Size((8, 7)), IN_OUT)


@pytest.mark.parametrize("structure", [NM(2, 4), NM(1, 4), NM(4, 4), NM(1, 3)])
def test_the_share_of_n_of_m(structure):
    assert structure.share == 1 - structure.n / structure.m
    assert (Element().share, Block(2, 2).share, Rows().share) == (None, None, None)


def by_blocks(scores, rows, cols):
    """Means of the blocks of a matrix, cut ones included, and which block every entry lies in."""
    means, where = [], torch.zeros(scores.shape, dtype=torch.long)
    for top in range(0, scores.shape[0], rows):
        for left in range(0, scores.shape[1], cols):
            where[top : top + rows, left : left + cols] = len(means)
            means.append(scores[top : top + rows, left : left + cols].mean())
    return torch.stack(means), where


@pytest.mark.parametrize("block", [(2, 4), (4, 4), (3, 5), (1, 8), (6, 1), (6, 8)])
def test_blocks_with_cut_edges_against_brute_force(block):
    scores = torch.rand(6, 8, dtype=torch.float64)
    means, where = by_blocks(scores, *block)
    structure = Block(*block)
    torch.testing.assert_close(structure.to_groups(scores, OUT_IN), means.view(1, -1))
    for remove in range(len(means) + 1):
        expected = keep_mask(means, remove)[where]
        assert torch.equal(prune(structure, scores, OUT_IN, remove), expected)


def test_blocks_of_a_convolution_lie_in_the_matrix_of_filters():
    scores = torch.rand(4, 2, 3, 3, dtype=torch.float64)
    means, where = by_blocks(scores.reshape(4, 18), 2, 9)
    assert torch.equal(prune(Block(2, 9), scores, OUT_IN, 2), keep_mask(means, 2)[where].view(4, 2, 3, 3))


def test_no_block_reaches_from_one_expert_into_the_next():
    scores = torch.rand(3, 5, 4, dtype=torch.float64)  # five rows: a cut block at the end of every expert
    layout = Layout(out_dim=1, in_dim=2)
    structure = Block(2, 2)
    parts = [by_blocks(matrix, 2, 2) for matrix in scores]
    torch.testing.assert_close(structure.to_groups(scores, layout), torch.cat([means for means, _ in parts]).view(1, -1))
    kept = keep_mask(torch.cat([means for means, _ in parts]), 7)
    expected = torch.stack([kept[6 * i : 6 * i + 6][where] for i, (_, where) in enumerate(parts)])
    assert torch.equal(prune(structure, scores, layout, 7), expected)
    assert structure.units(scores.shape, layout) == 18
    with pytest.raises(BadInput, match="a matrix of 5 x 4"):
        Block(6, 2).check("experts", scores.shape, layout)


def test_a_block_larger_than_the_matrix_is_refused():
    with pytest.raises(BadInput, match=r"'block:4x4' is larger than 'fc\.weight', a matrix of 2 x 8 \(shape \(2, 8\)\)"):
        Block(4, 4).check("fc.weight", torch.Size((2, 8)), OUT_IN)


def test_rows_are_filters():
    scores = torch.tensor([[1.0, 1, 1], [0, 0, 9], [2, 2, 1]])
    assert prune(Rows(), scores, OUT_IN, 1).int().tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert prune(Rows(), scores, IN_OUT, 2).int().tolist() == [[0, 0, 1]] * 3  # columns are the outputs
    assert Rows().unit_size(torch.Size((4, 2, 3, 3)), OUT_IN) == 18


def test_per_row_takes_the_same_number_from_every_row():
    scores = torch.tensor([[1.0, 2, 3], [10.0, 30, 20]])
    assert prune(PerRow(), scores, OUT_IN, 1).int().tolist() == [[0, 1, 1], [0, 1, 1]]
    assert prune(PerRow(), scores, IN_OUT, 1).int().tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_sixteen_bit_scores_are_taken_in_float32(dtype):
    scores = torch.full((4, 600), 300.0, dtype=dtype)  # a sum of 180,000 is beyond float16, and beyond bfloat16's precision
    assert Rows().to_groups(scores, OUT_IN).tolist() == [[300.0] * 4]
    assert Block(2, 300).to_groups(scores, OUT_IN).tolist() == [[300.0] * 4]


@pytest.mark.parametrize("text", ["element", "rows", "2:4", "1:16", "2:4:pad", "block:4x4", "block:16x1"])
def test_names_are_read_back(text):
    assert parse_structure(text).name == text
    assert parse_structure("filters") == Rows()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("elements", "structure='elements' is unknown.*did you mean 'element'"),
        ("block:4", "structure='block:4' is unknown.*'block:4x4'"),
        ("5:4", "structure '5:4': N:M keeps N of every M weights"),
        ("0:4", "structure '0:4'"),
        ("1:1", "structure '1:1'"),
        ("block:0x4", "structure 'block:0x4': a block has at least one row"),
        ("2:4:padded", "structure='2:4:padded' is unknown"),
        ("", "structure='' is unknown"),
    ],
)
def test_what_is_no_structure_is_quoted(text, says):
    with pytest.raises(BadInput, match=says):
        parse_structure(text)
