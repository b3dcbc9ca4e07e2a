"""Shares of compute as steps, and runs of the same compute: closed forms, brute force over steps, the published lengths."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.schedules import CURVES, Schedule
from secateurs.errors import BadInput
from secateurs.planning import by_compute, make_schedule, same_compute
from secateurs.planning.compute import compute_share
from secateurs.recipe import Recipe


def densities(schedule, total):
    """Of every step 1..total: that of the masks of the last update before it."""
    kept, density = [], 1.0
    for step in range(total):
        if schedule.is_update(step):
            density = 1 - schedule.sparsity(step)
        kept.append(density)
    return kept


@pytest.mark.parametrize(
    ("sparsity", "total", "end", "average"),
    [(0.2, 11_200, 8_080, 0.893), (0.4, 13_050, 8_890, 0.766), (0.6, 16_375, 10_135, 0.610), (0.8, 25_060, 12_560, 0.399)],
)
def test_runs_of_the_compute_of_ten_thousand_dense_steps(sparsity, total, end, average):
    """2500 + 5000 + 2500 dense steps' worth: 2500, then 5000 over the mean density s / -ln(1 - s), then 2500 / (1 - s)."""
    schedule, steps = same_compute(sparsity, 10_000, every=1)
    ramp = sparsity / -math.log(1 - sparsity)
    assert schedule.begin == 2500
    assert schedule.end == pytest.approx(2500 + 5000 / ramp, abs=3)
    assert steps == pytest.approx(2500 + 5000 / ramp + 2500 / (1 - sparsity), abs=3)
    assert (steps, schedule.end) == (pytest.approx(total, abs=15), pytest.approx(end, abs=10))
    assert schedule.average_density(steps) == pytest.approx(average, abs=6e-4)
    assert schedule.average_density(steps) * steps == pytest.approx(10_000, abs=1)


@pytest.mark.parametrize(
    ("sparsity", "total", "end", "average"),
    [(0.2, 11_200, 8_100, 0.8919), (0.4, 13_050, 8_875, 0.7651), (0.6, 16_375, 10_100, None)],
)
def test_the_published_runs(sparsity, total, end, average):
    """Pruned every 100 steps; the published ends are rounded, to within half a per cent of the run."""
    schedule, steps = same_compute(sparsity, 10_000)
    assert steps == pytest.approx(total, abs=20)
    assert schedule.end == pytest.approx(end, abs=25)
    assert average is None or schedule.average_density(steps) == pytest.approx(average, abs=2e-3)


CASES = st.tuples(st.floats(0.05, 0.95), st.floats(0, 1), st.floats(0, 1), st.integers(1, 40), st.integers(50, 3000),
                  st.sampled_from([c for c in CURVES if c not in ("cyclic", "one-shot")]))  # fmt: skip


@given(CASES)
def test_the_same_compute_counted_step_by_step(case):
    sparsity, a, b, every, dense, curve = case
    begin, end = sorted((a, b))
    schedule, steps = same_compute(sparsity, dense, begin, end, every, curve)
    spent = densities(schedule, steps)
    slack = 1 + every  # the ramp's mean density is known to within an update
    assert sum(spent) == pytest.approx(dense, abs=1 if end < 1 else slack)
    assert sum(spent[: schedule.begin]) == pytest.approx(begin * dense, abs=0.5)
    assert sum(spent[: schedule.end]) == pytest.approx(end * dense, abs=slack)
    assert schedule.average_density(steps) == pytest.approx(sum(spent) / steps)


@given(CASES)
def test_shares_of_the_compute_of_a_given_length(case):
    sparsity, a, b, every, total, curve = case
    begin, end = sorted((a, b))
    schedule = by_compute(Schedule(sparsity, every=every, curve=curve), begin, end, total)
    spent = densities(schedule, total)
    assert 0 <= schedule.begin <= schedule.end <= total
    assert sum(spent[: schedule.begin]) == pytest.approx(begin * sum(spent), abs=1 + every)
    assert sum(spent[: schedule.end]) == pytest.approx(end * sum(spent), abs=1 + every)


def test_shares_of_compute_are_not_shares_of_steps():
    recipe = Recipe("gmp", begin="25% of compute", end="75% of compute", schedule="geometric", every=100, total_steps=16_357)
    schedule = make_schedule(recipe, 0.6)
    assert (schedule.begin, schedule.end) == (2500, 10_107)
    assert make_schedule(Recipe("gmp", begin=0.25, end=0.75, total_steps=16_357), 0.6).begin == 4089


def test_nothing_pruned_costs_what_it_costs():
    schedule, steps = same_compute(0.0, 400)
    assert (schedule.begin, schedule.end, steps) == (100, 300, 400)
    assert schedule.average_density(400) == 1.0


def test_texts():
    said = ("25% of compute", " 12.5 % of compute ", "100% of compute")
    assert [compute_share(text, "begin") for text in said] == [0.25, 0.125, 1.0]
    assert [compute_share(v, "begin") for v in (0.25, 7, None)] == [None] * 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"begin": "25%", "end": "75% of compute"}, r"begin='25%': as text this is a share of the run's compute"),
        ({"begin": "25% of compute", "end": "101% of compute"}, "end='101% of compute'"),
        ({"begin": "25% of compute", "end": 0.75}, r"begin='25% of compute', end=0\.75: give both as shares of compute"),
        ({"begin": "75% of compute", "end": "25% of compute"}, r"begin=0\.75, end=0\.25: .* begin not after"),
        ({"begin": "25% of compute", "end": "75% of compute", "total_steps": None}, "total_steps is needed too"),
    ],
)
def test_shares_that_cannot_be(settings, says):
    with pytest.raises(BadInput, match=says):
        make_schedule(Recipe("gmp", **{"total_steps": 100, **settings}), 0.5)


def test_lengths_that_cannot_be():
    with pytest.raises(BadInput, match="dense_steps=0 must be at least 1"):
        same_compute(0.5, 0)
    with pytest.raises(BadInput, match="total_steps=0"):
        by_compute(Schedule(0.5), 0.2, 0.5, 0)
    with pytest.raises(BadInput, match=r"sparsity=1\.0: give the share"):
        same_compute(1.0, 100)
