"""Coefficients against pair counting and SciPy, their intervals, and how often the oracle is beaten."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.comparing.studies import correlation
from secateurs.comparing.studies.correlation import anomaly, correlations
from secateurs.errors import BadInput

stats = pytest.importorskip("scipy.stats")
SIX = ([0.1, 0.4, 0.2, 0.9, 0.5, 0.7], [0.95, 0.93, 0.96, 0.90, 0.91, 0.94])


def pairs(x, y):
    signs = [np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in combinations(range(len(x)), 2)]
    return sum(signs), len(signs)


def test_kendall_is_counting_pairs():
    agreeing, count = pairs(*SIX)
    assert correlations(*SIX)[0].value == pytest.approx(agreeing / count)


def test_tau_b_takes_ties_out_of_the_denominator():
    x, y = [1, 1, 2, 3, 3, 4], [2, 1, 1, 5, 4, 4]
    agreeing, count = pairs(x, y)
    assert correlations(x, y)[0].value == pytest.approx(agreeing / np.sqrt((count - 2) * (count - 2)))


def test_all_three_are_minus_one_on_a_reversed_list():
    found = correlations(range(10), range(10)[::-1])
    assert [c.name for c in found] == ["Kendall tau-b", "Spearman rho", "Pearson r"]
    assert [(c.value, c.low, c.high) for c in found] == [pytest.approx((-1, -1, -1))] * 3
    assert all(c.p < 0.001 for c in found)


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=4, max_size=12), st.integers(0, 99))
def test_a_resample_has_the_coefficients_of_the_pairs_it_drew(points, seed):
    x, y = np.array(points, dtype=float).T
    counts = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)))
    drawn_x, drawn_y = np.repeat(x, counts), np.repeat(y, counts)
    if np.ptp(drawn_x) == 0 or np.ptp(drawn_y) == 0:
        return
    for ours, theirs in ((correlation._kendall, stats.kendalltau), (correlation._spearman, stats.spearmanr),
                         (correlation._pearson, stats.pearsonr)):  # fmt: skip
        found = ours(x, y, counts[None].astype(float))
        assert found == pytest.approx([theirs(drawn_x, drawn_y).statistic], abs=1e-9)


def test_intervals_hold_the_value_and_are_the_same_each_time():
    generator = np.random.default_rng(0)
    x = generator.normal(size=60)
    y = -x + generator.normal(size=60)
    found = correlations(x, y, seed=3)
    assert all(-1 <= c.low < c.value < c.high < 0 and c.p < 1e-4 for c in found)
    assert found == correlations(x, y, seed=3) != correlations(x, y, seed=4)


def test_nothing_to_correlate():
    for c in (*correlations([1, 2, 3], [5, 5, 5]), *correlations([1, 2], [3, 4])):
        assert (c.value, c.p, c.low, c.high) == (None, None, None, None)
    with pytest.raises(BadInput, match="2 numbers with 3"):
        correlations([1, 2], [1, 2, 3])
    with pytest.raises(BadInput, match="NaN or infinite"):
        correlations([1, 2, float("nan")], [1, 2, 3])


def test_the_oracle_never_beats_itself():
    found = anomaly([0.2, 0.1, 0.3], [0.9, 0.95, 0.8])
    assert (found.oracle, found.better, found.ratio) == (1, 0, 0)
    assert anomaly([0.2, 0.1, 0.3], [0.9, 0.9, 0.9]).better == 0  # equal is not better


def test_anomalies_are_counted_in_the_direction_of_the_metric():
    loss, result = [0.2, 0.1, 0.3, 0.4], [0.9, 0.85, 0.8, 0.95]
    assert anomaly(loss, result).ratio == 2 / 4
    assert anomaly(loss, result, higher_is_better=False).ratio == 1 / 4
