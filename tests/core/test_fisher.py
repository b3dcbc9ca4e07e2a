"""Inverse Fisher matrices beside numpy's, and what they say of weights beside brute force. Six weights, twenty gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.fisher import Estimate, exact_update, obs_statistic, ranges, summed_update
from secateurs.core.fisher_blocks import BlockSums
from secateurs.core.fisher_factors import GradientRows
from secateurs.core.obs_factor import NotPositiveDefinite
from secateurs.errors import BadInput

FORMS = pytest.mark.parametrize("form", [BlockSums, GradientRows])
DAMPING = 1e-2


def gradients(count=20, size=6, seed=0, scale=1.0):
    return scale * torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(rows, sizes=(6,), block=6, damping=DAMPING):
    """F as a matrix, zero outside the blocks."""
    matrix = rows.T @ rows / len(rows)
    inside = torch.zeros_like(matrix, dtype=torch.bool)
    for start, stop in ranges(sizes, block):
        inside[start:stop, start:stop] = True
    return matrix * inside + damping * torch.eye(len(matrix), dtype=matrix.dtype)


def inverse(form, rows, sizes=(6,), block=6, damping=DAMPING, dtype=torch.float64):
    sums = form(sizes, Estimate(len(rows), 1, block, damping), dtype, torch.device("cpu"))
    for row in rows:
        sums.add(row)
    return sums.inverse()


def columns(found, size):
    return torch.stack([found.product(e) for e in torch.eye(size, dtype=torch.float64)], 1)


def recursion(rows, damping):
    """Sherman and Morrison, gradient by gradient, as published; and the factors ``h_i / sqrt(c_i)``."""
    matrix, factors = torch.eye(rows.shape[1], dtype=rows.dtype) / damping, []
    for g in rows:
        h = matrix @ g
        c = len(rows) + g @ h
        matrix = matrix - torch.outer(h, h) / c
        factors.append(h / c.sqrt())
    return matrix, torch.stack(factors)


@FORMS
@pytest.mark.parametrize("count", [20, 3], ids=["full rank", "singular without damping"])
def test_the_inverse_is_the_recursion_and_numpys(form, count):
    rows = gradients(count)
    found = inverse(form, rows)
    reference = torch.from_numpy(np.linalg.inv(dense(rows).numpy()))
    torch.testing.assert_close(recursion(rows, DAMPING)[0], reference, rtol=0, atol=1e-10)
    torch.testing.assert_close(columns(found, 6), reference, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.diagonal, reference.diagonal(), rtol=0, atol=1e-10)


def test_the_factors_are_those_of_the_recursion():
    rows = gradients()
    found = inverse(GradientRows, rows, block=0)
    torch.testing.assert_close(found.rows, recursion(rows, DAMPING)[1], rtol=1e-12, atol=1e-13)


def test_matrix_free_products_are_those_of_the_dense_inverse():
    rows = gradients(10, 40)
    found, reference = inverse(GradientRows, rows, (25, 15), 0, damping=1.0), torch.linalg.inv(dense(rows, (40,), 40, 1.0))
    x = gradients(1, 40, seed=1)[0]
    torch.testing.assert_close(found.product(x), reference @ x, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.diagonal, reference.diagonal(), rtol=0, atol=1e-13)


def test_blocks_lie_where_they_should():
    assert ranges([5, 3], 2) == [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]
    assert ranges([5, 3], 100) == [(0, 5), (5, 8)]
    assert ranges([5, 3], 0) == [(0, 8)]


@FORMS
@pytest.mark.parametrize(("sizes", "block"), [((5, 3), 2), ((5, 3), 100), ((7, 1), 3), ((8,), 1), ((3, 5), 4)])
def test_blocks_of_many_tensors(form, sizes, block):
    rows = gradients(20, 8)
    found, reference = inverse(form, rows, sizes, block), torch.linalg.inv(dense(rows, sizes, block))
    torch.testing.assert_close(columns(found, 8), reference)
    torch.testing.assert_close(found.diagonal, reference.diagonal())


@FORMS
def test_more_entries_than_are_worked_on_together(form, monkeypatch):
    monkeypatch.setattr("secateurs.core.fisher_blocks._ENTRIES", 7)
    monkeypatch.setattr("secateurs.core.fisher_factors._ENTRIES", 7)
    rows, gone = gradients(37, 8), torch.tensor([1, 0, 1, 0, 0, 1, 1, 0]).bool()
    found, matrix = inverse(form, rows, (5, 3), 2), dense(rows, (5, 3), 2)
    torch.testing.assert_close(columns(found, 8), torch.linalg.inv(matrix))
    torch.testing.assert_close(exact_update(rows[0], gone, found), best(matrix, rows[0], gone))


@FORMS
def test_gradients_in_float32(form):
    rows = gradients(20, 6)
    found = inverse(form, rows, dtype=torch.float32)
    torch.testing.assert_close(found.diagonal.double(), torch.linalg.inv(dense(rows)).diagonal(), rtol=1e-4, atol=0)
    x = gradients(1, 6, seed=3)[0]
    torch.testing.assert_close(found.product(x).double(), torch.linalg.inv(dense(rows)) @ x, rtol=1e-3, atol=1e-4)


# -- one weight -------------------------------------------------------------------------------------------------------


def cost(matrix, change):
    return change @ matrix @ change / 2


@FORMS
@pytest.mark.parametrize("update", [summed_update, exact_update])
@pytest.mark.parametrize("q", range(6))
def test_one_removal_costs_its_statistic_and_is_the_constrained_minimum(form, update, q):
    rows, weight = gradients(), gradients(1, seed=2)[0]
    found, matrix = inverse(form, rows), dense(rows)
    change = update(weight, torch.arange(6) == q, found)
    torch.testing.assert_close(change[q], -weight[q])
    torch.testing.assert_close(cost(matrix, change), obs_statistic(weight, found.diagonal)[q])
    slope = matrix @ change  # Karush, Kuhn and Tucker: no slope along the weights that are free
    torch.testing.assert_close(slope[torch.arange(6) != q], torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_diagonal_is_obd():
    """Blocks of one: ``w^2 (F_qq + lambda) / 2``, and nothing makes up for anything."""
    rows, weight = gradients(), gradients(1, seed=2)[0]
    found = inverse(BlockSums, rows, block=1)
    torch.testing.assert_close(obs_statistic(weight, found.diagonal), weight**2 * (rows.square().mean(0) + DAMPING) / 2)
    for update in (summed_update, exact_update):
        change = update(weight, torch.arange(6) == 4, found)
        assert change.nonzero().flatten().tolist() == [4]
        torch.testing.assert_close(change[4], -weight[4])


@FORMS
def test_with_much_damping_the_ranking_is_that_of_magnitude(form):
    rows, weight = gradients(20, 6, scale=100.0), torch.tensor([0.3, -0.1, 0.5, -0.2, 0.6, 0.4]).double()
    def order(damping):
        return obs_statistic(weight, inverse(form, rows, damping=damping).diagonal).argsort().tolist()

    assert order(1e12) == weight.abs().argsort().tolist()
    assert order(1e-3) != order(1e12)


# -- many weights -----------------------------------------------------------------------------------------------------


def best(matrix, weight, gone):
    """The free weights' best answer to the removals, from F itself."""
    change = torch.where(gone, -weight, torch.zeros_like(weight))
    change[~gone] = -torch.linalg.solve(matrix[~gone][:, ~gone], matrix[~gone][:, gone] @ change[gone])
    return change


@FORMS
@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_exact_update_is_the_best_there_is(form, seed, many):
    rows, weight = gradients(20, 6, seed), gradients(1, 6, seed + 1)[0]
    gone = torch.randperm(6, generator=torch.Generator().manual_seed(seed)) < many
    found, matrix = inverse(form, rows), dense(rows)
    exact = exact_update(weight, gone, found)
    torch.testing.assert_close(exact, best(matrix, weight, gone), rtol=1e-6, atol=1e-8)
    summed = torch.where(gone, -weight, summed_update(weight, gone, found))
    plain = torch.where(gone, -weight, torch.zeros_like(weight))
    assert cost(matrix, exact) <= cost(matrix, summed) + 1e-9
    assert cost(matrix, exact) <= cost(matrix, plain) + 1e-9


def test_the_sum_of_single_updates_lies_between_the_best_and_none_in_typical_draws():
    """No theorem: it is so on the whole, over a hundred draws of which three of six weights go."""
    total, better = torch.zeros(3, dtype=torch.float64), 0
    for seed in range(100):
        rows, weight = gradients(20, 6, seed), gradients(1, 6, 1000 + seed)[0]
        found, matrix = inverse(BlockSums, rows), dense(rows)
        gone = obs_statistic(weight, found.diagonal).argsort() < 3
        plain = torch.where(gone, -weight, torch.zeros_like(weight))
        summed = torch.where(gone, -weight, summed_update(weight, gone, found))
        costs = torch.stack([cost(matrix, c) for c in (exact_update(weight, gone, found), summed, plain)])
        total, better = total + costs, better + int(costs[1] <= costs[2])
    assert total[0] < total[1] < total[2]
    assert better > 80


def test_all_weights_may_go():
    found, weight = inverse(GradientRows, gradients()), gradients(1, seed=2)[0]
    torch.testing.assert_close(exact_update(weight, torch.ones(6).bool(), found), -weight)
    torch.testing.assert_close(exact_update(weight, torch.zeros(6).bool(), found), torch.zeros(6).double())


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "told"), [
    ({"gradients": 0}, r"gradients=0: of a Fisher matrix this is a whole number, 1 or more"),
    ({"samples": 2.0}, r"samples=2.0"),
    ({"block": -1}, r"block=-1: .* 0 or more"),
    ({"block": True}, r"block=True"),
    ({"damping": 0.0}, r"damping=0.0: .* a number above 0"),
    ({"damping": float("nan")}, r"damping=nan"),
])  # fmt: skip
def test_an_estimate_that_cannot_be(given, told):
    with pytest.raises(BadInput, match=told):
        Estimate(**given)


def test_a_damping_that_is_lost_beside_the_gradients():
    with pytest.raises(NotPositiveDefinite, match=r"damping=1e-12.*larger"):
        inverse(GradientRows, gradients(2, 6, scale=1e5) * torch.tensor([1, 0, 0, 0, 0, 0]), damping=1e-12)
