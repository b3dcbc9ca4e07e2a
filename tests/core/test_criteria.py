"""Criteria by eye: higher = keep."""

import math

import pytest
import torch

from secateurs.core.criteria import CRITERIA, find_criterion, noise
from secateurs.core.select import keep_mask
from secateurs.errors import BadInput

W = torch.tensor([-3.0, 0.5, 0.0, 2.0, -0.0, 1.0], dtype=torch.float64)
G = torch.tensor([0.1, -4.0, 9.0, 0.0, -5.0, 1.0], dtype=torch.float64)
CPU = torch.device("cpu")


def score(name, weight=W, **statistics):
    return find_criterion(name).score(weight, statistics)


def test_magnitude_by_eye():
    assert score("magnitude").tolist() == [3.0, 0.5, 0.0, 2.0, 0.0, 1.0]
    assert find_criterion("magnitude").needs == frozenset()


def test_gradient_by_eye_with_zero_weights_below_all():
    assert score("gradient", gradient=G).tolist() == [0.1, 4.0, -0.1, 0.0, -1 / 6, 1.0]
    assert keep_mask(score("gradient", gradient=G), 3).int().tolist() == [1, 1, 0, 0, 0, 1]


def test_random_takes_zero_weights_first_and_ranks_them_among_themselves():
    drawn = torch.tensor([0.9, 0.1, 0.75, 0.5, 0.25, 0.0], dtype=torch.float64)
    scores = score("random", noise=drawn)
    assert [scores[i].item() for i in (0, 1, 3, 5)] == [0.9, 0.1, 0.5, 0.0]
    assert [keep_mask(scores, k).int().tolist() for k in (1, 2, 3)] == [
        [1, 1, 1, 1, 0, 1],  # of the zeros the one with the lower noise
        [1, 1, 0, 1, 0, 1],
        [1, 1, 0, 1, 0, 0],
    ]


def test_taylor_is_the_connection_sensitivity_of_snip():
    """L = (c1 w1 x1 + c2 w2 x2 - y)^2 / 2 with w = (2, -1), x = (1, 3), y = 1: the residual is -2, so |dL/dc| = (4, 6)."""
    w, x, y = torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64), 1.0
    c = torch.ones(2, dtype=torch.float64, requires_grad=True)
    ((c * w * x).sum() - y).square().div(2).backward()
    assert c.grad.abs().tolist() == [4.0, 6.0]
    gradient = ((w * x).sum() - y) * x
    assert score("taylor", w, gradient=gradient).tolist() == [4.0, 6.0]


def test_taylor_takes_zero_weights_before_those_without_a_gradient():
    assert score("taylor", gradient=G).tolist() == pytest.approx([0.3, 2.0, -1.0, 0.0, -1.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_products_of_sixteen_bit_floats_keep_their_order(dtype):
    w, g = torch.tensor([1e-3, 2e-3, 3e-3], dtype=dtype), torch.full((3,), 1e-5, dtype=dtype)
    scores = score("taylor", w, gradient=g)
    assert 0 < scores[0] < scores[1] < scores[2]


def test_a_gradient_that_is_no_number_stays_one_at_a_zero_weight():
    scores = score("gradient", torch.zeros(3), gradient=torch.tensor([math.inf, math.nan, 1.0]))
    assert torch.isfinite(scores).tolist() == [False, False, True]


def test_every_criterion_needs_what_it_reads():
    for criterion in CRITERIA.values():
        statistics = {"gradient": G, "noise": G.abs() / 10}
        asked = {name: statistics[name] for name in criterion.needs}
        assert criterion.score(W, asked).shape == W.shape
        for name in criterion.needs:
            with pytest.raises(KeyError, match=name):
                criterion.score(W, {k: v for k, v in asked.items() if k != name})


def test_an_unknown_criterion_is_quoted():
    with pytest.raises(BadInput, match=r"criterion='magnitud' is unknown; use one of magnitude.*did you mean 'magnitude'"):
        find_criterion("magnitud")


def test_noise_depends_on_the_seed_and_the_name_alone():
    shape = torch.Size((4, 8))
    drawn = noise(0, "fc1.weight", shape, CPU)
    torch.manual_seed(99)
    torch.rand(3)
    assert torch.equal(noise(0, "fc1.weight", shape, CPU), drawn)  # whatever was drawn in between
    assert not torch.equal(noise(0, "fc2.weight", shape, CPU), drawn)  # layers of one shape differ
    assert not torch.equal(noise(1, "fc1.weight", shape, CPU), drawn)
    assert not torch.equal(noise(-1, "fc1.weight", shape, CPU), drawn)
    assert drawn.dtype == torch.float32 and drawn.min() >= 0 and drawn.max() < 1


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    noise(0, "w", torch.Size((3,)), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_uniform():
    drawn = noise(3, "w", torch.Size((20_000,)), CPU)
    counts = torch.histc(drawn, 10, 0, 1)
    assert (counts - 2000).abs().max() < 5 * math.sqrt(2000 * 0.9)
