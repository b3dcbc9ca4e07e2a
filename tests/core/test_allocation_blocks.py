"""Shares per block by eye, and what holds for all of them: exact totals, bounds, order."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.allocation import Owl, PerLayer, Ranked, WaterFill, find_allocation
from secateurs.core.allocation_blocks import (
    block_of,
    group_scores,
    outlier_ratio,
    owl_counts,
    staged_sparsities,
    water_fill,
    within_groups,
)
from secateurs.core.count import removed_count
from secateurs.errors import BadInput

SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=8)
PERCENT = st.integers(0, 99)


def layer(name, scores):
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return Ranked(name, scores.shape, scores.numel(), lambda: scores)


# -- OWL


def test_outliers_by_eye():
    a, b = torch.tensor([[1.0, 1.0], [1.0, 12.0]]), torch.tensor([0.0, -1.0, 0.0, 1.0])  # mean 16 / 8
    assert outlier_ratio([a, b]) == 1 / 8
    assert outlier_ratio([a, b], 0.4) == 5 / 8  # those above 0.8
    assert outlier_ratio([b], 5.0) == 0.0 and outlier_ratio([b], 3.9) == 1 / 4
    assert outlier_ratio([torch.zeros(3)]) == 0.0
    with pytest.raises(BadInput, match="no outliers to count"):
        outlier_ratio([])


def test_owl_by_eye_is_the_authors_rule():
    """Keep ratios: d scaled to [0, 2 spread], minus its mean, plus 1 - s."""
    ratios, s, spread = [0.01, 0.03, 0.05, 0.02], 0.6, 0.08
    scaled = [2 * spread * (r - 0.01) / 0.04 for r in ratios]
    keep = [d - sum(scaled) / 4 + 1 - s for d in scaled]
    counts = owl_counts(ratios, [1000] * 4, s, spread)
    assert counts == [round(1000 * (1 - k)) for k in keep] == [670, 590, 510, 630] and sum(counts) == 2400


@given(SIZES, st.data(), PERCENT, st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_owl_meets_the_total_within_its_spread(sizes, data, percent, spread):
    ratios = data.draw(st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes)))
    counts = owl_counts(ratios, sizes, percent / 100, spread)
    assert sum(counts) == removed_count(sum(sizes), percent / 100)
    assert all(0 <= k <= n for k, n in zip(counts, sizes, strict=True))
    shares = [k / n for k, n in zip(counts, sizes, strict=True)]
    assert max(shares) - min(shares) <= 2 * spread + 2 / min(sizes) + 1e-9
    for i in range(len(sizes)):
        for j in range(len(sizes)):
            if sizes[i] == sizes[j] and ratios[i] > ratios[j]:
                assert counts[i] <= counts[j]


def test_owl_with_equal_ratios_is_uniform_and_shares_stay_within_zero_and_one():
    assert owl_counts([0.3] * 3, [10, 20, 40], 0.5) == [5, 10, 20]
    assert owl_counts([0.0, 0.5, 1.0], [100] * 3, 0.04, 0.1) == [11, 1, 0]
    assert owl_counts([0.0, 1.0], [100] * 2, 0.98, 0.1) == [99, 97]  # a block keeps one weight


def test_owl_keeps_blocks_with_outliers_denser_and_layers_of_a_block_alike():
    spiky, flat = torch.ones(100), torch.linspace(1, 2, 100)
    spiky[:10] = 60.0
    layers = [layer("h.0.q.weight", spiky), layer("h.0.up.weight", spiky[:50]), layer("h.1.q.weight", flat)]
    counts = Owl()(layers, 0.5)
    assert counts == [43, 22, 60]  # shares 0.436 and 0.596; 65 of the first block's 150, two thirds and one
    assert Owl(spread=0.0)(layers, 0.5) == [50, 25, 50]
    assert isinstance(find_allocation("owl", multiple=3.0), Owl)


@pytest.mark.parametrize("settings_, message", [({"spread": 0.6}, "spread=0.6"), ({"spread": math.nan}, "spread=nan")])
def test_a_spread_that_cannot_work(settings_, message):
    with pytest.raises(BadInput, match=message):
        owl_counts([0.1, 0.2], [5, 5], 0.5, **settings_)


# -- water filling


def poured(scores, sizes, keep, floors):
    """The published loop in real numbers: share what is left by score, clip full groups, until nothing is left."""
    kept, scores = list(floors), list(scores)
    while keep - sum(kept) > 1e-9:
        left, total = keep - sum(kept), sum(scores)
        kept = [min(n, k + left * s / total) for n, k, s in zip(sizes, kept, scores, strict=True)]
        scores = [0.0 if k >= n else s for k, n, s in zip(kept, sizes, scores, strict=True)]
    return kept


def test_water_filling_by_eye():
    assert water_fill([1, 1, 2], [100, 100, 100], 0.5, 0.8) == [57, 58, 35]  # 60 kept as floors, 90 poured 1 : 1 : 2
    assert water_fill([1, 0, 50], [100, 100, 100], 0.5, 0.8) == [70, 80, 0]  # the third is full, what is left goes to the first
    assert water_fill([0, 0, 5], [100, 100, 100], 0.5, 0.8) == [75, 75, 0]  # the others share the rest by size


def test_rounding_goes_with_the_scores():
    assert water_fill([1, 3, 2], [3, 3, 3], 0.5, 0.9)[1] == min(water_fill([1, 3, 2], [3, 3, 3], 0.5, 0.9))
    assert water_fill([4.0, 5.0], [3, 3], 0.5, 0.5) == [2, 1]
    assert owl_counts([1.0, 0.0], [3, 3], 0.09, 0.0) == [0, 1]


@given(SIZES, st.data(), st.integers(0, 89))
@settings(max_examples=60, deadline=None)
def test_water_filling_is_the_published_loop_with_an_exact_total(sizes, data, percent):
    scores = data.draw(st.lists(st.floats(0.001, 100), min_size=len(sizes), max_size=len(sizes)))
    s, most = percent / 100, (percent + 10) / 100
    removed, keep = water_fill(scores, sizes, s), sum(sizes) - removed_count(sum(sizes), s)
    assert sum(removed) == sum(sizes) - keep
    floors = [math.ceil(round(n * (1 - most), 9)) for n in sizes]
    if sum(floors) <= keep:
        assert all(0 <= k <= n - f for k, n, f in zip(removed, sizes, floors, strict=True))
        expected = poured(scores, sizes, keep, [n * (1 - most) for n in sizes])
        assert all(abs(n - k - e) < len(sizes) + 1 for n, k, e in zip(sizes, removed, expected, strict=True))
    for i in range(len(sizes)):
        for j in range(len(sizes)):
            if sizes[i] == sizes[j] and scores[i] > scores[j]:
                assert removed[i] <= removed[j]


@given(SIZES, PERCENT)
@settings(max_examples=40, deadline=None)
def test_equal_scores_per_parameter_or_a_cap_at_the_sparsity_give_the_uniform_share(sizes, percent):
    s = percent / 100
    for counts in (water_fill([3.0 * n for n in sizes], sizes, s, max(s, 0.99)), water_fill([1.0] * len(sizes), sizes, s, s)):
        assert sum(counts) == removed_count(sum(sizes), s)
        assert all(abs(k - n * s) < 1.5 for k, n in zip(counts, sizes, strict=True) if n > 100)


def test_a_cap_at_the_sparsity_is_uniform_and_one_below_is_refused():
    assert water_fill([1, 100], [7, 13], 0.5, 0.5) == [3, 7]
    with pytest.raises(BadInput, match=r"most=0\.4 is below the sparsity 0\.5"):
        water_fill([1, 2], [10, 10], 0.5, 0.4)


@pytest.mark.parametrize("scores", [[1.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_scores_that_cannot_work(scores):
    with pytest.raises(BadInput, match="scores"):
        water_fill(scores, [5, 5], 0.5)


def test_large_and_small_scores():
    assert water_fill([1e-300, 1e-300], [100, 100], 0.5) == [50, 50]
    assert water_fill([1e300, 1e300], [100, 100], 0.5) == [50, 50]


def test_water_filling_over_layers():
    layers = [layer("a.0.q", torch.ones(10)), layer("a.0.k", torch.ones(30)), layer("a.1.q", torch.ones(40))]
    scores = {"a.0.q": 5.0, "a.0.k": 1.0, "a.1.q": 2.0}
    assert WaterFill(scores)(layers, 0.5) == [5, 13, 22]  # 16 + 16 kept as floors, 6 + 2 poured
    assert WaterFill(scores, most=0.5)(layers, 0.5) == [5, 15, 20]
    with pytest.raises(BadInput, match=r"no score for 'a\.1\.q' \(1 such layers\)"):
        WaterFill({"a.0.q": 5.0, "a.0.k": 1.0})(layers, 0.5)


# -- the small ones


def test_blocks_by_name():
    names = ["model.layers.11.mlp.up_proj.weight", "0.weight", "encoder.block.0.layer.1.wo.weight", "lm_head.weight", "a.b0.c"]
    assert [block_of(n) for n in names] == ["model.layers.11", "0", "encoder.block.0", "lm_head.weight", "a.b0.c"]


def test_group_scores():
    scores, groups, sizes = [1.0, 2.0, 4.0, 8.0], ["b", "a", "b", "a"], [1, 2, 4, 8]
    assert group_scores(scores, groups, sizes) == [5.0, 10.0]
    assert group_scores(scores, groups, sizes, "avg") == [1.0, 1.0]
    with pytest.raises(BadInput, match=r"reduce='mean': .* 'sum' .* 'avg'"):
        group_scores(scores, groups, sizes, "mean")


@given(SIZES, PERCENT)
@settings(max_examples=40, deadline=None)
def test_counts_within_groups_add_up(sizes, percent):
    groups = [i % 3 for i in range(len(sizes))]
    whole = [sum(n for n, g in zip(sizes, groups, strict=True) if g == group) for group in dict.fromkeys(groups)]
    counts = [removed_count(n, percent / 100) for n in whole]
    found = within_groups(counts, groups, sizes)
    assert [sum(k for k, g in zip(found, groups, strict=True) if g == group) for group in dict.fromkeys(groups)] == counts
    assert all(0 <= k <= n for k, n in zip(found, sizes, strict=True))


def test_stages_rise_to_the_sparsity():
    stages = staged_sparsities(0.6, 4)
    assert len(stages) == 4 and stages == sorted(stages) and stages[-1] == 0.6 and stages[0] == pytest.approx(0.6**4)


def test_shares_per_layer():
    layers = [layer("h.0.q", torch.ones(10)), layer("h.0.up", torch.ones(20)), layer("h.1.q", torch.ones(10))]
    assert PerLayer({"*": 0.5, "h.1.*": 0.2, "h.0.up": 0.0})(layers, 0.9) == [5, 0, 2]
    with pytest.raises(BadInput, match=r"'h\.2\.q' matches no layer; did you mean 'h\.1\.q'"):
        PerLayer({"*": 0.5, "h.2.q": 0.2})(layers, 0.9)
    with pytest.raises(BadInput, match=r"'h\.0\.up' has none \(2 such layers\)"):
        PerLayer({"h.0.q": 0.5})(layers, 0.9)
    with pytest.raises(BadInput, match=r"the share of '\*'=1\.5"):
        PerLayer({"*": 1.5})(layers, 0.9)
