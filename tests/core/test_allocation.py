"""Allocations: exact integer counts per layer, against brute force over the concatenation."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.allocation import (
    ALLOCATIONS,
    Er,
    Global,
    GlobalFloor,
    Lamp,
    Ranked,
    Uniform,
    er_densities,
    find_allocation,
    lamp_scores,
    split,
)
from secateurs.core.count import removed_count
from secateurs.core.layout import Layout
from secateurs.core.select import keep_mask
from secateurs.errors import BadInput


def ranked(scores, name="w", shape=None, group="", layout=Layout(), unit_size=1):
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return Ranked(name, torch.Size(shape or scores.shape), scores.numel(), lambda: scores.flatten(), group, layout, unit_size)


def layers_of(*scores):
    return [ranked(s, f"layer{i}") for i, s in enumerate(scores)]


def random_layers(*sizes):
    return layers_of(*(torch.rand(n, dtype=torch.float64) for n in sizes))


def kept(layers, counts):
    return [keep_mask(layer.scores(), k) for layer, k in zip(layers, counts, strict=True)]


def whole(layers):
    return torch.cat([layer.scores() for layer in layers])


# -- one ranking over all layers


def test_global_by_eye():
    layers = layers_of([5.0, 1, 1], [2.0, 1, 4, 0])
    assert [Global()(layers, s) for s in (0.0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 6 / 7)] == [
        [0, 0],
        [0, 1],
        [0, 2],
        [1, 2],
        [2, 2],
        [2, 4],
    ]


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=5), st.integers(0, 99))
def test_global_removes_the_lowest_of_the_concatenation_exactly(scores, percent):
    layers = layers_of(*([float(v) for v in s] for s in scores))
    counts = Global()(layers, percent / 100)
    assert sum(counts) == removed_count(sum(layer.units for layer in layers), percent / 100)
    assert torch.equal(torch.cat(kept(layers, counts)), keep_mask(whole(layers), sum(counts)))


def test_permuting_the_layers_leaves_the_masks_unchanged():
    layers = random_layers(30, 5, 80, 1)
    counts = Global()(layers, 0.7)
    assert Global()(layers[::-1], 0.7) == counts[::-1]
    assert Lamp()(layers[::-1], 0.7) == Lamp()(layers, 0.7)[::-1]


@pytest.mark.parametrize("allocation", [Global(), GlobalFloor(floor=2), Lamp(), Uniform()])
def test_scaling_all_weights_changes_nothing(allocation):
    layers = random_layers(30, 50, 20)
    scaled = layers_of(*(1024 * layer.scores() for layer in layers))
    assert allocation(scaled, 0.6) == allocation(layers, 0.6)


def test_scaling_one_layer_changes_a_global_ranking_but_not_lamp():
    layers = random_layers(30, 50, 20)
    one = [layers[0], *layers_of(layers[1].scores() / 4), layers[2]]
    assert Global()(one, 0.6)[1] > Global()(layers, 0.6)[1]
    assert Lamp()(one, 0.6) == Lamp()(layers, 0.6)


def test_layers_of_several_dtypes_are_compared_by_value():
    half, single = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16), torch.tensor([1.5, 2.0, 2.5])
    layers = [
        Ranked("a", torch.Size([3]), 3, lambda: half, dtype=torch.float32),
        Ranked("b", torch.Size([3]), 3, lambda: single, dtype=torch.float32),
    ]
    assert [split(layers, k) for k in range(6)] == [[0, 0], [1, 0], [1, 1], [1, 2], [2, 2], [2, 3]]


def test_units_of_different_size_are_not_ranked_against_each_other():
    layers = [ranked([1.0, 2.0], unit_size=4), ranked([1.0, 2.0], unit_size=9)]
    for name in ("global", "global-floor", "er", "erk", "lamp"):
        with pytest.raises(BadInput, match=rf"allocation='{name}'.*hold \[4, 9\] weights each; use allocation='uniform'"):
            find_allocation(name)(layers, 0.5)
    assert Uniform()(layers, 0.5) == [1, 1]


# -- a floor in every layer


def collapse():
    return [ranked(torch.rand(10_000) + 0.5, "wide"), ranked(1e-3 * (torch.rand(100) + 0.5), "thin")]


def test_plain_global_removes_the_layer_of_small_scale_and_a_floor_saves_it():
    assert Global()(collapse(), 0.9) == [8990, 100]
    assert GlobalFloor(floor=20)(collapse(), 0.9) == [9010, 80]
    assert GlobalFloor(floor=20, redistribute="proportional")(collapse(), 0.9) == [9010, 80]
    assert GlobalFloor(floor=0.002)(collapse(), 0.9) == [9010, 80]  # 0.2 % of all 10,100 weights
    assert GlobalFloor(floor=0, layer_floor=0.05)(collapse(), 0.9) == [8995, 95]  # 5 % of its own 100


@pytest.mark.parametrize("redistribute", ["rank", "proportional"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_a_floor_of_none_is_plain_global(redistribute, sparsity):
    layers = random_layers(40, 10, 100, 3)
    floor = GlobalFloor(floor=0, redistribute=redistribute)
    assert floor(layers, sparsity) == Global()(layers, sparsity)


@st.composite
def floored(draw):
    scores = draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=5))
    return [[float(v) for v in s] for s in scores], draw(st.integers(0, 6)), draw(st.integers(0, 99)) / 100


@pytest.mark.parametrize("redistribute", ["rank", "proportional"])
@given(case=floored())
@settings(max_examples=60)
def test_every_layer_keeps_its_floor_and_the_total_is_exact(redistribute, case):
    scores, floor, sparsity = case
    layers, allocation = layers_of(*scores), GlobalFloor(floor=floor, redistribute=redistribute)
    sizes = [len(s) for s in scores]
    remove = removed_count(sum(sizes), sparsity)
    if sum(max(n - floor, 0) for n in sizes) < remove:
        with pytest.raises(BadInput, match=f"removes {remove} of {sum(sizes)} weights, but the floors keep"):
            allocation(layers, sparsity)
        return
    counts = allocation(layers, sparsity)
    assert sum(counts) == remove
    assert all(k >= 0 and n - k >= min(floor, n) for n, k in zip(sizes, counts, strict=True))


@given(case=floored())
@settings(max_examples=60)
def test_layers_above_their_floor_keep_their_global_order(case):
    scores, floor, sparsity = case
    layers, sizes = layers_of(*scores), [len(s) for s in scores]
    remove = removed_count(sum(sizes), sparsity)
    if sum(max(n - floor, 0) for n in sizes) < remove:
        return
    counts = GlobalFloor(floor=floor)(layers, sparsity)
    free = [i for i, (n, k) in enumerate(zip(sizes, counts, strict=True)) if k < max(n - floor, 0)]
    if free:
        together = [layers[i] for i in free]
        alone = keep_mask(whole(together), sum(counts[i] for i in free))
        assert torch.equal(torch.cat(kept(together, [counts[i] for i in free])), alone)
        for i in range(len(layers)):  # a floor only ever holds back what the global order would have taken
            if i not in free and counts[i]:
                last = layers[i].scores()[~kept([layers[i]], [counts[i]])[0]].max()
                assert (
                    last
                    <= torch.cat(
                        [layers[j].scores()[m] for j, m in zip(free, kept(together, [counts[j] for j in free]), strict=True)]
                    ).min()
                )


def test_proportional_scales_the_other_layers_alike():
    """Global shares: 60 of 100, 30 of 100, all 20 of the thin one, which keeps 10. So 60 : 30 becomes 66.67 : 33.33."""
    layers = layers_of([0.0] * 60 + [9.0] * 40, [0.0] * 30 + [9.0] * 70, [0.0] * 20)
    assert Global()(layers, 0.5) == [60, 30, 20]
    assert GlobalFloor(floor=10, redistribute="proportional")(layers, 0.5) == [67, 33, 10]
    assert GlobalFloor(floor=10, redistribute="rank")(layers, 0.5) == [60, 40, 10]  # ties: the later layer's nines go first


def test_proportional_turns_to_the_untouched_layers_when_no_other_has_room():
    layers = layers_of([9.0] * 50, [0.0] * 10)
    assert Global()(layers, 1 / 6) == [0, 10]
    assert GlobalFloor(floor=8, redistribute="proportional")(layers, 1 / 6) == [8, 2]


def test_a_layer_smaller_than_its_floor_stays_dense():
    assert GlobalFloor(floor=5)(layers_of([0.0, 0.0, 0.0], [1.0] * 20), 0.5) == [0, 12]


@pytest.mark.parametrize("redistribute", ["rank", "proportional"])
def test_floors_out_of_reach_are_refused(redistribute):
    allocation = GlobalFloor(floor=30, redistribute=redistribute)
    with pytest.raises(BadInput, match=r"sparsity 0\.9 removes 135 of 150 weights, but the floors keep 90 in 3 layers"):
        allocation(random_layers(50, 50, 50), 0.9)
    assert sum(allocation(random_layers(50, 50, 50), 0.4)) == 60  # just within


@pytest.mark.parametrize(
    "options", [{"floor": -1}, {"floor": 1.0}, {"layer_floor": 1.0}, {"layer_floor": -0.5}, {"redistribute": "ranks"}]
)
def test_floors_that_cannot_be(options):
    (value,) = options.values()
    with pytest.raises(BadInput, match=str(value)):
        find_allocation("global-floor", **options)


# -- Erdos-Renyi

EXAMPLE = [torch.Size(s) for s in ((16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (10, 64))]
SHAPES = st.lists(
    st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 20)] * 2, *[st.sampled_from([1, 3, 5])] * 2)),
    min_size=1,
    max_size=6,
)


def test_erk_example():
    """Four layers at a density of 0.2: the first and the last come out dense."""
    densities = er_densities(EXAMPLE, 0.2)
    assert [round(d, 3) for d in densities] == [1.0, 0.282, 0.133, 1.0]
    sizes = [math.prod(s) for s in EXAMPLE]
    assert sum(d * n for d, n in zip(densities, sizes, strict=True)) == pytest.approx(0.2 * sum(sizes), rel=1e-12)
    counts = Er()([ranked(torch.ones(s), str(i)) for i, s in enumerate(EXAMPLE)], 0.8)
    assert sizes == [432, 4608, 18432, 640]
    assert [n - k for n, k in zip(sizes, counts, strict=True)] == [432, 1298, 2452, 640]  # 3750 in two as 54 : 102
    assert sum(sizes) - sum(counts) == 4822  # 24,112 less floor(0.8 * 24,112 + 1/2)


def test_er_by_eye():
    """eps (4 + 4) / 16 and eps (8 + 2) / 16 of 16 weights each: 18 eps of 32, so eps = 8 / 9 at a density of one half."""
    assert er_densities([torch.Size((4, 4)), torch.Size((8, 2))], 0.5, kernel=False) == pytest.approx([8 / 18, 10 / 18])


@given(SHAPES, st.integers(1, 99), st.booleans())
def test_er_adds_up_and_no_layer_is_denser_than_dense(shapes, percent, kernel):
    shapes = [torch.Size(s) for s in shapes]
    densities = er_densities(shapes, percent / 100, kernel=kernel)
    sizes = [math.prod(s) for s in shapes]
    assert all(0 < d <= 1 for d in densities)
    assert sum(d * n for d, n in zip(densities, sizes, strict=True)) == pytest.approx(percent / 100 * sum(sizes), rel=1e-9)
    raw = [(sum(s) if kernel else s[0] + s[1]) / math.prod(s if kernel else s[:2]) for s in shapes]
    eps = {round(d / r, 9) for d, r in zip(densities, raw, strict=True) if d < 1}
    assert max(eps, default=0) - min(eps, default=0) <= 2e-9 * max(eps, default=1)  # one eps for all that are not dense


@given(SHAPES, st.integers(1, 60))
def test_er_counts_are_exact(shapes, percent):
    layers = [ranked(torch.ones(s), str(i)) for i, s in enumerate(shapes)]
    sizes = [layer.units for layer in layers]
    remove = removed_count(sum(sizes), percent / 100)
    if remove > sum(sizes) - len(sizes):
        with pytest.raises(BadInput, match="cannot be met"):
            Er()(layers, percent / 100)
        return
    counts = Er()(layers, percent / 100)
    assert sum(counts) == remove
    assert all(0 <= k < n for k, n in zip(counts, sizes, strict=True))


def test_erk_is_er_for_matrices_and_differs_by_the_taps_of_a_one_by_one_kernel():
    """The published rule sums all axes, ones too: (out + in + 2) / (out in) for a 1 x 1 kernel, not (out + in) / (out in)."""
    matrices = [torch.Size(s) for s in ((300, 100), (10, 300), (50, 50))]
    assert er_densities(matrices, 0.1) == er_densities(matrices, 0.1, kernel=False)
    pointwise = [torch.Size((*s, 1, 1)) for s in matrices]
    erk, er = er_densities(pointwise, 0.01), er_densities(pointwise, 0.01, kernel=False)
    assert er == pytest.approx(er_densities(matrices, 0.01))
    factors = [(sum(s) + 2) / sum(s) for s in matrices]
    common = [a / (b * f) for a, b, f in zip(erk, er, factors, strict=True)]
    assert common == pytest.approx([common[0]] * 3)
    assert erk != pytest.approx(er, rel=1e-3)


def test_stacked_experts_are_as_many_matrices():
    experts, plain, other = torch.Size((4, 30, 20)), torch.Size((30, 20)), torch.Size((40, 40))
    stacked = er_densities([experts, other], 0.1, [Layout(1, 2), Layout()])
    apart = er_densities([plain] * 4 + [other], 0.1)
    assert stacked == pytest.approx([apart[0], apart[-1]])


def test_er_depends_on_shapes_alone():
    zeros, ones = ([ranked(fill(s), str(i)) for i, s in enumerate(EXAMPLE)] for fill in (torch.zeros, torch.rand))
    assert Er()(zeros, 0.5) == Er()(ones, 0.5)


def test_bernoulli_counts_scatter_and_ours_do_not():
    """Published random masks are drawn entry by entry: their total deviates by sqrt(sum N d (1 - d)), here 55 of 4822."""
    sizes, densities = [math.prod(s) for s in EXAMPLE], er_densities(EXAMPLE, 0.2)
    deviation = math.sqrt(sum(n * d * (1 - d) for n, d in zip(sizes, densities, strict=True)))
    assert round(deviation) == 55
    drawn = torch.tensor(
        [sum(int((torch.rand(n) < d).sum()) for n, d in zip(sizes, densities, strict=True)) for _ in range(200)]
    ).double()
    assert drawn.mean() == pytest.approx(4822, abs=4 * deviation / math.sqrt(200))
    assert drawn.std() == pytest.approx(deviation, rel=0.25)
    counts = Er()([ranked(torch.ones(s), str(i)) for i, s in enumerate(EXAMPLE)], 0.8)
    assert sum(sizes) - sum(counts) == 4822  # every time


# -- LAMP


def test_lamp_by_eye():
    """Squares 1, 16, 4, 9: 1/30, 16/16, 4/29, 9/25."""
    assert lamp_scores(torch.tensor([1.0, 4.0, 2.0, 3.0])).tolist() == pytest.approx([1 / 30, 1.0, 4 / 29, 9 / 25])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_lamp_against_its_definition(magnitudes):
    """s_u^2 over the sum of s_v^2 for v ranked at or above u: larger, or equal and at a lower index, or u itself."""
    squares = [float(v) ** 2 for v in magnitudes]
    expected = [
        s / above if (above := sum(t for j, t in enumerate(squares) if t > s or (t == s and j <= i))) else 0.0
        for i, s in enumerate(squares)
    ]
    assert lamp_scores(torch.tensor(magnitudes, dtype=torch.float64)).tolist() == pytest.approx(expected)


def test_lamp_keeps_the_order_inside_a_layer_and_empties_none():
    layers = [ranked(10.0**-i * torch.rand(50), f"layer{i}") for i in range(4)]
    for layer in layers:
        assert torch.equal(torch.argsort(lamp_scores(layer.scores())), torch.argsort(layer.scores()))
    counts = Lamp()(layers, 0.9)
    assert sum(counts) == 180 and max(counts) < 50
    assert Global()(layers, 0.9)[3] == 50


def test_lamp_takes_weights_that_are_zero_already_first():
    """Criteria without a natural zero rank zero weights below 0; their squares must not lift them."""
    assert lamp_scores(torch.tensor([-1.0, 0.5, -0.5, 0.1])).tolist() == pytest.approx([0.0, 1.0, 0.0, 0.01 / 0.26])


# -- every layer alike


def test_uniform_counts_each_layer_by_itself():
    assert Uniform()(random_layers(10, 5, 1, 3), 0.5) == [5, 3, 0, 2]
    assert Uniform()(random_layers(10, 5, 1, 3), 0.99) == [9, 4, 0, 2]


def test_tensors_of_one_group_are_ranked_as_one():
    both = [ranked([5.0, 1, 1], "ih", group="l0"), ranked([0.0, 1, 9, 9, 9], "hh", group="l0"), ranked([1.0, 2], "fc")]
    assert Uniform()(both, 0.5) == [2, 2, 1]  # 0, then the ones from the back: hh's, ih's later, ih's first
    assert Uniform()(both, 0.25) == [0, 2, 1]


def test_shares_round_one_by_one_unless_a_total_was_promised():
    assert Uniform()(random_layers(5, 5, 5, 5), 0.5) == [3, 3, 3, 3]
    assert Uniform(exact_total=True)(random_layers(5, 5, 5, 5), 0.5) == [3, 3, 2, 2]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 99))
def test_a_promised_total_is_met_by_rounding_the_layers_together(sizes, percent):
    layers, sparsity = random_layers(*sizes), percent / 100
    remove = removed_count(sum(sizes), sparsity)
    if remove > sum(sizes) - len(sizes):
        with pytest.raises(BadInput, match="cannot be met"):
            Uniform(exact_total=True)(layers, sparsity)
        return
    counts = Uniform(exact_total=True)(layers, sparsity)
    assert sum(counts) == remove
    assert all(k < n for k, n in zip(counts, sizes, strict=True))


# -- by name


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_every_name_gives_exact_counts(name):
    scores = [torch.rand(math.prod(s)) for s in EXAMPLE]
    layers = [
        replace(ranked(torch.rand(s), str(i)), slope=lambda i=i: 1.0 + i, judged=lambda name, i=i: scores[i])
        for i, s in enumerate(EXAMPLE)
    ]
    counts = find_allocation(name)(layers, 0.75)
    assert sum(counts) == 18084 == removed_count(24112, 0.75)
    assert all(0 <= k <= layer.units for k, layer in zip(counts, layers, strict=True))
    assert find_allocation(name)(layers, 0.0) == [0] * 4


def test_unknown_names_and_options_are_quoted():
    with pytest.raises(BadInput, match=r"allocation='globel' is unknown; use one of uniform.*did you mean 'global'"):
        find_allocation("globel")
    with pytest.raises(BadInput, match=r"allocation='global' has no option 'flor'"):
        find_allocation("global", flor=3)
