"""Exact selection against a sort in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core import select
from secateurs.core.select import check_finite, cut_mask, find_cut, keep_mask, keep_mask_grouped, tally
from secateurs.errors import BadInput, NotFinite

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def by_sorting(scores, remove):
    """Value descending, index ascending: the first n - remove stay."""
    flat = scores.detach().flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[order[: len(flat) - remove]] = True
    return kept.view(scores.shape)


def awkward(dtype):
    """Ties, both zeros, negatives, denormals, the largest and the smallest of a dtype."""
    info = torch.finfo(dtype)
    denormal = info.tiny / 4
    values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1.0,
        info.max,
        info.min,
        info.tiny,
        -info.tiny,
        denormal,
        -denormal,
        0.5,
        1.0,
        -0.0,
        0.0,
        1 + info.eps,
    ]
    return torch.tensor(values, dtype=dtype)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(select, "_CHUNK", 3)


def test_six_scores_by_eye():
    scores = torch.tensor([3.0, 1.0, 1.0, 2.0, 1.0, 0.0])
    kept = {remove: keep_mask(scores, remove).int().tolist() for remove in range(7)}
    assert kept == {
        0: [1, 1, 1, 1, 1, 1],
        1: [1, 1, 1, 1, 1, 0],
        2: [1, 1, 1, 1, 0, 0],  # of the three ones the last goes first
        3: [1, 1, 0, 1, 0, 0],
        4: [1, 0, 0, 1, 0, 0],
        5: [1, 0, 0, 0, 0, 0],
        6: [0, 0, 0, 0, 0, 0],
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunked", [False, True])
def test_awkward_numbers_for_every_count(dtype, chunked, request):
    if chunked:
        request.getfixturevalue("small_chunks")
    scores = awkward(dtype)
    assert len(set(scores.tolist())) == 11  # nothing was lost in the dtype
    for remove in range(len(scores) + 1):
        assert torch.equal(keep_mask(scores, remove), by_sorting(scores, remove)), remove


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=40)
def test_any_scores_for_any_count(dtype, data):
    width = torch.finfo(dtype).bits
    number = st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(allow_nan=False, allow_infinity=False, width=min(width, 64))
    )
    values = data.draw(st.lists(number, min_size=1, max_size=30))
    scores = (
        torch.tensor(values, dtype=torch.float64)
        .to(dtype)
        .nan_to_num(posinf=torch.finfo(dtype).max, neginf=torch.finfo(dtype).min)
    )
    remove = data.draw(st.integers(0, len(values)))
    kept = keep_mask(scores, remove)
    assert int((~kept).sum()) == remove
    assert torch.equal(kept, by_sorting(scores, remove))


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_ties_among_many_entries(dtype):
    scores = torch.randint(-3, 4, (2003,)).to(dtype)
    for remove in (1, 500, 1000, 1001, 2002):
        assert torch.equal(keep_mask(scores, remove), by_sorting(scores, remove))


def test_the_border_of_a_chunk_may_lie_in_a_run_of_ties(small_chunks):
    scores = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    assert keep_mask(scores, 4).int().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert tally(scores, 1.0) == (1, 6)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=20)
def test_streaming_over_tensors_is_ranking_their_concatenation(dtype, data):
    streams = [
        torch.tensor(s, dtype=dtype)
        for s in data.draw(st.lists(st.lists(st.integers(-4, 4), max_size=9), min_size=1, max_size=5))
    ]
    whole = torch.cat(streams)
    remove = data.draw(st.integers(0, max(whole.numel() - 1, 0)))
    if not whole.numel():
        return
    cut = find_cut(lambda: streams, remove)
    assert cut == find_cut(lambda: [whole], remove)
    assert cut == find_cut(lambda: streams[::-1], remove)  # neither value nor number of ties depends on the order
    assert torch.equal(cut_mask(whole, cut), by_sorting(whole, remove))


def test_a_stream_may_be_computed_afresh_each_time():
    calls = []

    def streams():
        calls.append(1)
        return (torch.arange(5.0) + 10 * i for i in range(3))

    assert find_cut(streams, 7).value == 12.0
    assert len(calls) == 2  # float32: two times sixteen bits


def test_removing_everything_leaves_nothing_above_the_cut():
    cut = find_cut(lambda: [torch.tensor([1.0, 5.0])], 2)
    assert (cut.value, cut.ties_kept) == (math.inf, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_names_the_tensor(bad, small_chunks):
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0, bad, 6.0])
    for rank in (lambda: keep_mask(scores, 2, "conv1.weight"), lambda: keep_mask_grouped(scores.view(2, 3), 1, "conv1.weight"),
                 lambda: check_finite(scores, "conv1.weight")):  # fmt: skip
        with pytest.raises(NotFinite, match=r"'conv1\.weight' has 1 non-finite of 6 entries"):
            rank()


def test_the_largest_finite_numbers_are_finite():
    check_finite(torch.tensor([torch.finfo(torch.float32).max] * 1000), "w")  # their sum is not


def test_counts_that_cannot_be():
    with pytest.raises(BadInput, match="cannot remove 4 of the 3 entries of 'w'"):
        keep_mask(torch.ones(3), 4, "w")
    with pytest.raises(BadInput, match="cannot remove -1 of the 3"):
        keep_mask(torch.ones(3), -1)
    with pytest.raises(BadInput, match="cannot remove 3 of every 2 entries of 'w'"):
        keep_mask_grouped(torch.ones(5, 2), 3, "w")
    with pytest.raises(BadInput, match=r"dtype torch\.int64 cannot be ranked"):
        keep_mask(torch.arange(3), 1)
    with pytest.raises(BadInput, match="the selection is empty"):
        find_cut(lambda: [], 1)


def test_one_entry_none_and_a_scalar():
    assert keep_mask(torch.ones(0), 0).shape == (0,)
    assert keep_mask(torch.tensor(2.0), 0).item() is True
    assert keep_mask(torch.tensor(2.0), 1).item() is False
    assert keep_mask(torch.tensor([2.0]), 1).tolist() == [False]
    assert keep_mask_grouped(torch.ones(0, 4), 2).shape == (0, 4)
    assert keep_mask_grouped(torch.ones(3, 0), 0).shape == (3, 0)


def test_memory_order_does_not_matter():
    scores = torch.randint(0, 3, (5, 7)).float()
    for view in (scores.T, scores[:, ::2], scores[1:4], scores.expand(2, 5, 7)):
        for remove in (0, 1, view.numel() // 2, view.numel()):
            assert torch.equal(keep_mask(view, remove), by_sorting(view, remove))
    parameter = torch.nn.Parameter(scores)
    assert torch.equal(keep_mask(parameter, 9), by_sorting(scores, 9))


@pytest.mark.parametrize("units", [1, 2, 4, 16, 17])  # up to 16 pairs are counted, above that rows are sorted
@pytest.mark.parametrize("dtype", DTYPES)
def test_grouped_is_every_row_by_itself(units, dtype, small_chunks):
    scores = torch.randint(-2, 3, (5, units)).to(dtype)
    for remove in range(units + 1):
        one_by_one = torch.stack([by_sorting(row, remove) for row in scores])
        assert torch.equal(keep_mask_grouped(scores, remove), one_by_one)
        assert torch.equal(keep_mask_grouped(scores.T.contiguous().T, remove), one_by_one)
    assert torch.equal(keep_mask(scores[0], units // 2), keep_mask_grouped(scores[:1], units // 2)[0])


@pytest.mark.parametrize("units", [4, 12])
def test_the_two_rules_for_rows_agree(units):
    scores = torch.randint(-2, 3, (200, units)).float()
    scores[0] = torch.tensor([0.0, -0.0] * (units // 2))
    for keep in range(units + 1):
        assert torch.equal(select._rank_by_pairs(scores, keep), select._rank_by_sort(scores, keep))


def test_many_short_groups_are_ranked_as_few_are():
    scores = torch.randint(3, (3000, 4), generator=torch.Generator().manual_seed(0)).float()  # many ties
    whole = keep_mask_grouped(scores, 2)
    assert torch.equal(whole, torch.cat([keep_mask_grouped(part, 2) for part in scores.split(1000)]))
    assert (whole.sum(1) == 2).all()
