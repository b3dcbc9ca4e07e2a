"""The scaling law: what went in comes out."""

import itertools
from dataclasses import astuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.scaling import ScalingLaw, fit_scaling
from secateurs.errors import BadInput

LAW = ScalingLaw(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)
GRID = list(itertools.product([1e7, 3e7, 1e8, 3e8, 1e9], [1e9, 1e10, 1e11]))


def runs(law, noise=0.0, grid=GRID):
    torch.manual_seed(0)
    losses = [law(n, d) * (1 + noise * float(torch.randn(()))) for n, d in grid]
    return [n for n, _ in grid], [d for _, d in grid], losses


def test_the_law_by_eye():
    """3 + 8 / 4 + 9 / 3 with N = 16, D = 9 and square roots."""
    assert ScalingLaw(E=3.0, A=8.0, alpha=0.5, B=9.0, beta=0.5)(16.0, 9.0) == pytest.approx(8.0)


def test_runs_without_noise_give_the_law_back():
    found = fit_scaling(*runs(LAW))
    assert astuple(found) == pytest.approx(astuple(LAW), rel=0.02)
    assert (found.alpha, found.beta) == pytest.approx((0.34, 0.28), rel=2e-3)
    assert found(5e9, 1e12) == pytest.approx(LAW(5e9, 1e12), rel=1e-4)  # five times larger and ten times longer than any run


@settings(max_examples=4, deadline=None)
@given(st.floats(0.5, 3), st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_any_such_law_predicts_what_it_has_not_seen(floor, alpha, beta):
    law = ScalingLaw(E=floor, A=0.7 * 1e8**alpha, alpha=alpha, B=0.4 * 1e10**beta, beta=beta)
    found = fit_scaling(*runs(law))
    assert [found(n, d) for n, d in ((5e7, 5e9), (2e9, 2e11))] == pytest.approx([law(5e7, 5e9), law(2e9, 2e11)], rel=2e-3)


def test_noise_moves_predictions_by_no_more_than_itself():
    found = fit_scaling(*runs(LAW, noise=0.005))
    assert [found(n, d) for n, d in GRID] == pytest.approx([LAW(n, d) for n, d in GRID], rel=0.01)


def test_a_run_that_went_wrong_moves_little():
    n, d, losses = runs(LAW)
    losses[7] *= 1.5
    found = fit_scaling(n, d, losses)
    assert [found(*at) for at in GRID] == pytest.approx([LAW(*at) for at in GRID], rel=0.005)


def test_fits_of_the_same_runs_agree_and_their_order_hardly_matters():
    n, d, losses = runs(LAW, noise=0.005)
    assert astuple(fit_scaling(n, d, losses)) == pytest.approx(astuple(fit_scaling(n, d, losses)), rel=1e-8)
    turned = fit_scaling(n[::-1], d[::-1], losses[::-1])
    assert turned(1e8, 1e10) == pytest.approx(fit_scaling(n, d, losses)(1e8, 1e10), rel=1e-4)


def test_units_do_not_matter():
    n, d, losses = runs(LAW, noise=0.005)
    found, in_millions = fit_scaling(n, d, losses), fit_scaling([v / 1e6 for v in n], [v / 1e6 for v in d], losses)
    assert in_millions(100, 1e4) == pytest.approx(found(1e8, 1e10), rel=1e-6)
    assert in_millions.alpha == pytest.approx(found.alpha, rel=1e-4)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]), "4 runs of 4 sizes and 4 numbers of tokens do not settle a law of five"),
        (([1, 2, 1, 2, 1], [1, 2, 3, 4, 5], [1] * 5), "5 runs of 2 sizes and 5 numbers of tokens"),
        (([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 0, 1, 1]), "losses hold 0.0: all are above 0 and finite"),
        (([1, 2, 3, 4, float("nan")], [1, 2, 3, 4, 5], [1] * 5), "parameters hold nan"),
        (([1, 2, 3, 4, 5], [1, 2, 3, 4], [1] * 5), "5 sizes, 4 numbers of tokens and 5 losses"),
    ],
)
def test_runs_that_settle_nothing(columns, says):
    with pytest.raises(BadInput, match=says):
        fit_scaling(*columns)
