"""Gradual magnitude pruning as published: counts of the paper's network, orders, the histogram threshold."""

import math

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput
from secateurs.models import select, survey
from secateurs.papers.weights.gmp import Gmp, histogram_threshold
from secateurs.planning import Choices, decide
from secateurs.recipe import Recipe
from tests.papers.networks import mobilenet, tiny


def test_the_non_zeros_of_mobilenet():
    """4.21 M weights, of which the first and the depthwise convolutions (1.1 %) stay: 2.13, 1.09, 0.46, 0.25 M non-zeros."""
    model = mobilenet()
    everything = survey(model)
    chosen = select(everything, exempt=("gmp",))
    assert round(everything.size / 1e6, 2) == 4.21
    assert round(1 - chosen.size / everything.size, 3) == 0.011
    recipe = Recipe("gmp").with_defaults(Gmp.defaults)
    for sparsity, millions in ((0.5, 2.13), (0.75, 1.09), (0.9, 0.46), (0.95, 0.25)):
        masks = decide(chosen.weights, Choices.of(recipe, Gmp()), sparsity)
        nonzero = everything.size - sum(int((~mask).sum()) for mask in masks.values())
        assert round(nonzero / 1e6, 2) == millions
        assert nonzero == pytest.approx(everything.size * (1 - chosen.size / everything.size * sparsity), abs=len(masks) / 2)


def steps_of(pruner, steps):
    """Sparsity of every layer after each step, without training: the weights are what they are."""
    pruner.attach(torch.optim.SGD([w.parameter for w in pruner.weights], 0.0))
    rows = [[row["removed"] for row in pruner.report()[:-1]]]
    for _ in range(steps):
        pruner.step()
        rows.append([row["removed"] for row in pruner.report()[:-1]])
    return rows


SETTINGS = {"sparsity": 0.8, "begin": 2, "end": 8, "every": 3}
# 144, 192 and 64 weights; the targets at steps 2, 5, 8 are 0, 0.8 * 7/8 = 0.7 and 0.8
NONE, MIDDLE, END = [0, 0, 0], [101, 134, 45], [115, 154, 51]


def test_all_layers_at_once():
    assert steps_of(sc.Pruner(tiny(), "gmp", **SETTINGS), 10) == [NONE] * 5 + [MIDDLE] * 3 + [END] * 3


def test_one_layer_after_the_other():
    """Three layers and three steps to an update: one each, all done at the update's own step."""
    rows = steps_of(sc.Pruner(tiny(), "gmp", options={"order": "layerwise"}, **SETTINGS), 10)
    assert rows == [
        NONE, NONE, NONE,
        [101, 0, 0], [101, 134, 0], MIDDLE,
        [115, 134, 45], [115, 154, 45], END,
        END, END,
    ]  # fmt: skip


def test_one_ranking_over_all_layers():
    model = tiny()
    model[2].weight.data *= 10
    rows = steps_of(sc.Pruner(model, "gmp", options={"order": "global"}, **SETTINGS), 10)
    assert [sum(row) for row in rows] == [0] * 5 + [280] * 3 + [320] * 3
    assert rows[5] != MIDDLE and rows[-1][1] < 154


def test_orders_that_exclude_each_other():
    with pytest.raises(BadInput, match="cannot take turns"):
        sc.Pruner(tiny(), "gmp", options={"order": "layerwise"}, allocation="global", **SETTINGS)
    with pytest.raises(BadInput, match="does not go with order='global'"):
        sc.Pruner(tiny(), "gmp", options={"order": "global", "threshold": "histogram"}, **SETTINGS)
    for settings in ({"structure": "2:4"}, {"allocation": "per-row", "sparsity": 0.5}):
        with pytest.raises(BadInput, match="threshold='histogram' cuts a layer at one value"):
            sc.Pruner(tiny(), "gmp", options={"threshold": "histogram"}, end=8, **settings)
    with pytest.raises(BadInput, match=r"'gmp' has no option 'ordr'; its options: order, threshold; did you mean 'order'"):
        sc.Pruner(tiny(), "gmp", options={"ordr": "all"}, **SETTINGS)
    with pytest.raises(BadInput, match="option order='layers' of 'gmp': use one of 'all', 'layerwise', 'global'"):
        sc.Pruner(tiny(), "gmp", options={"order": "layers"}, **SETTINGS)


# -- the histogram threshold of the original code


def gaussian(n=10_000):
    return torch.randn(n, generator=torch.Generator().manual_seed(0)).abs()


def test_threshold_by_eye():
    """Eight scores in four bins over [0, 8]: 3, 2, 2, 1 in them, cumulative shares 0.375, 0.625, 0.875, 1."""
    scores = torch.tensor([0.1, 1.0, 1.9, 2.5, 3.5, 4.5, 5.5, 8.0])
    edges = [histogram_threshold(scores, s, bins=4) for s in (0.0, 0.3, 0.375, 0.5, 0.625, 0.7, 0.9, 1.0)]
    assert edges == [0.0, 0.0, 0.0, 2.0, 2.0, 4.0, 6.0, 6.0]  # the lower edge of the bin in which the share is reached


def test_255_bins_fall_short_of_ninety_percent_by_a_third_of_one():
    scores = gaussian()
    share = float((scores <= histogram_threshold(scores, 0.9)).double().mean())
    assert share == pytest.approx(0.897, abs=0.002) and share < 0.9


def test_the_threshold_tends_to_the_quantile_as_bins_grow():
    scores = gaussian()
    quantile = float(scores.quantile(0.9))
    errors = [quantile - histogram_threshold(scores, 0.9, bins) for bins in (15, 255, 4095, 65535)]
    width = [float(scores.max()) / bins for bins in (15, 255, 4095, 65535)]
    assert all(-1e-3 <= error <= w + 1e-3 for error, w in zip(errors, width, strict=True))
    assert errors[0] > errors[1] > errors[2] and abs(errors[3]) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_threshold_never_takes_the_largest(dtype):
    scores = torch.tensor([0.1, 0.2, 0.3], dtype=dtype)
    for sparsity in (0.0, 0.5, 0.999):
        assert histogram_threshold(scores, sparsity) < float(scores.max())
    assert histogram_threshold(torch.zeros(3, dtype=dtype), 0.5) == 0.0


def test_smoothing_lags_behind_a_constant_target():
    """thr <- 0.9 thr + 0.1 T from 0: thr_j = T (1 - 0.9^j)."""
    method, scores = Gmp({"threshold": "histogram"}), gaussian().view(1, -1)
    final = histogram_threshold(scores, 0.9)
    shares = []
    for j in range(1, 41):
        kept = method.choose("w", scores, 9000)
        threshold = method.state_dict()["smoothed"]["w"]
        assert threshold == pytest.approx(final * (1 - 0.9**j))
        assert torch.equal(kept, scores > threshold)
        shares.append(1 - float(kept.double().mean()))
    assert shares == sorted(shares)
    assert [round(shares[j - 1], 2) for j in (1, 10, 20, 40)] == [0.14, 0.71, 0.85, 0.89]  # the target is 0.9


def test_each_layer_has_a_threshold_of_its_own_and_a_checkpoint_has_them_all():
    method, scores = Gmp({"threshold": "histogram"}), gaussian().view(1, -1)
    assert method.state_dict() == {}
    method.choose("a", scores, 9000)
    method.choose("b", 2 * scores, 9000)
    state = method.state_dict()
    assert state["smoothed"]["b"] == pytest.approx(2 * state["smoothed"]["a"])
    again = Gmp({"threshold": "histogram"})
    again.load_state_dict(state)
    assert torch.equal(again.choose("a", scores, 9000), method.choose("a", scores, 9000))
    assert math.isclose(again.state_dict()["smoothed"]["a"], method.state_dict()["smoothed"]["a"])


def test_exact_counts_have_no_memory():
    method, scores = Gmp(), gaussian(100).view(1, -1)
    for remove in (90, 10, 90):
        assert int((~method.choose("w", scores, remove)).sum()) == remove
    assert method.state_dict() == {}


def test_a_lagging_run_ends_below_its_target():
    model = nn.Linear(100, 20)
    pruner = sc.Pruner(model, "gmp", sparsity=0.9, end=10, every=2, options={"threshold": "histogram"})
    steps_of(pruner, 10)
    assert 0 < pruner.sparsity < 0.9
