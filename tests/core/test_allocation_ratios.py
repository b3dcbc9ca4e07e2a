"""Densities with exceptions, and counts taken from another criterion's ranking."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.allocation import Global, Ranked, UniformPlus, er_densities, find_allocation
from secateurs.core.allocation_ratios import uniform_plus_densities
from secateurs.core.count import removed_count
from secateurs.errors import BadInput

EXAMPLE = [torch.Size(s) for s in ((16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (10, 64))]
SHAPES = st.lists(
    st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 20)] * 2, *[st.sampled_from([1, 3, 5])] * 2)),
    min_size=1,
    max_size=6,
)


def ranked(scores, name="w"):
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return Ranked(name, scores.shape, scores.numel(), lambda: scores.flatten())


def layers_of(*scores):
    return [ranked(s, f"layer{i}") for i, s in enumerate(scores)]


def random_layers(*sizes):
    return layers_of(*(torch.rand(n, dtype=torch.float64) for n in sizes))


# -- with exceptions


def test_uniform_plus_by_eye():
    """At 0.1: 432 dense, a fifth of 640, and of 2411.2 kept in all what is left, 1851.2, over 23,040 weights."""
    assert uniform_plus_densities([432, 4608, 18432, 640], 0.1, 0, 3) == pytest.approx([1, 1851.2 / 23040, 1851.2 / 23040, 0.2])
    counts = UniformPlus()([ranked(torch.ones(s), str(i)) for i, s in enumerate(EXAMPLE)], 0.9)
    assert counts[0] == 0 and counts[3] == 512 and sum(counts) == 21701  # floor(0.9 * 24,112 + 1/2)
    assert counts[1] / 4608 == pytest.approx(counts[2] / 18432, abs=2e-4)


def test_uniform_plus_leaves_the_head_to_the_rule_where_all_are_denser_than_a_fifth():
    counts = UniformPlus()([ranked(torch.ones(s), str(i)) for i, s in enumerate(EXAMPLE)], 0.5)
    assert counts[0] == 0 and sum(counts) == 12056
    assert len({round(k / math.prod(s), 2) for k, s in zip(counts[1:], EXAMPLE[1:], strict=True)}) == 1


def test_uniform_plus_without_convolutions_and_with_only_these():
    matrices = [ranked(torch.ones(s), str(i)) for i, s in enumerate(((50, 40), (10, 50)))]
    assert UniformPlus()(matrices, 0.9) == [1850, 400]  # 2000 with 150 kept, 500 with 100
    kernels = [ranked(torch.ones(s), str(i)) for i, s in enumerate(((8, 3, 3, 3), (8, 8, 3, 3)))]
    assert UniformPlus()(kernels, 0.5) == [0, 396]


def test_erk_plus_has_a_dense_head_at_the_same_total():
    layers = [ranked(torch.ones(s), str(i)) for i, s in enumerate(((64, 3, 3, 3), (128, 64, 3, 3), (500, 128)))]
    plain, plus = find_allocation("erk")(layers, 0.5), find_allocation("erk-plus")(layers, 0.5)
    assert sum(plain) == sum(plus) == removed_count(sum(layer.units for layer in layers), 0.5)
    assert plain[2] > 0 and plus[2] == 0
    assert er_densities([layer.shape for layer in layers], 0.5, dense=[2])[2] == 1.0


@given(SHAPES, st.integers(20, 99))
def test_dense_layers_and_the_rest_add_up(shapes, percent):
    shapes = [torch.Size(s) for s in shapes]
    sizes = [math.prod(s) for s in shapes]
    if sizes[0] > percent / 100 * sum(sizes):
        with pytest.raises(BadInput, match="the layers that stay dense hold"):
            er_densities(shapes, percent / 100, dense=[0])
        return
    densities = er_densities(shapes, percent / 100, dense=[0])
    assert densities[0] == 1.0 and all(-1e-12 <= d <= 1 for d in densities)
    assert sum(d * n for d, n in zip(densities, sizes, strict=True)) == pytest.approx(percent / 100 * sum(sizes), rel=1e-9)


@pytest.mark.parametrize("name", ["uniform-plus", "erk-plus"])
def test_exceptions_that_hold_more_than_may_stay_are_refused(name):
    layers = [ranked(torch.ones(s), str(i)) for i, s in enumerate(((16, 16, 3, 3), (100, 16)))]
    with pytest.raises(BadInput, match=r"a density of 0\.01 keeps 39 of 3904 weights, but the layers that stay dense hold"):
        find_allocation(name)(layers, 0.99)


# -- another criterion's ratios


def test_borrowed_ratios_are_the_counts_of_the_other_criterion():
    """Judged by it, the three lowest of six are two of the first layer's and one of the second's."""
    layers = layers_of([9.0, 9, 9], [0.0, 0, 0])
    other = [torch.tensor(v, dtype=torch.float64) for v in ([1.0, 2, 6], [3.0, 4, 5])]
    seen = []

    def judge(scores):
        return lambda name: seen.append(name) or scores

    judged = [replace(layer, judged=judge(scores)) for layer, scores in zip(layers, other, strict=True)]
    assert find_allocation("snip")(judged, 0.5) == [2, 1] and set(seen) == {"taylor"}
    assert find_allocation("grasp")(judged, 0.5) == [2, 1] and set(seen) == {"taylor", "grasp"}
    assert Global()(layers, 0.5) == [0, 3]


def test_a_layer_that_the_other_criterion_would_empty_keeps_one():
    other = [torch.tensor([1.0, 2]), torch.tensor([3.0, 4, 5, 6])]
    layers = [replace(a, judged=lambda name, b=b: b) for a, b in zip(random_layers(2, 4), other, strict=True)]
    assert find_allocation("grasp")(layers, 0.5) == [1, 2]


def test_borrowed_ratios_need_something_to_judge_by():
    with pytest.raises(BadInput, match="the ratios of 'taylor' need what it judges 'layer0' by: give calibration batches"):
        find_allocation("snip")(random_layers(3, 3), 0.5)
