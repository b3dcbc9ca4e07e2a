"""Schedules: s(t) by eye, and what holds for every one."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.schedules import CURVES, Schedule, Turn, layerwise, resolve_step, together
from secateurs.errors import BadInput


@st.composite
def any_schedule(draw, curves=tuple(CURVES)):
    begin, span = draw(st.integers(0, 50)), draw(st.integers(0, 200))
    initial, final = sorted((draw(st.floats(0, 0.99)), draw(st.floats(0, 0.99))))
    curve = draw(st.sampled_from(curves))
    return Schedule(final, begin, begin + span, draw(st.integers(1, 60)), curve, initial, draw(st.integers(1, 5)))


def test_the_cubic_ramp_of_the_paper():
    """57.8 %, 87.5 % and 98.4 % of the final sparsity after a quarter, a half and three quarters of the span."""
    schedule = Schedule(0.8, begin=100, end=500, every=100)
    shares = [round(schedule.sparsity(t) / 0.8, 3) for t in (100, 200, 300, 400, 500)]
    assert shares == [0.0, 0.578, 0.875, 0.984, 1.0]
    assert list(schedule.updates()) == [100, 200, 300, 400, 500]


def test_the_formula_with_an_initial_sparsity():
    """s_f + (s_i - s_f) (1 - (t - t_0) / (n D))^3 with s_i = 0.2, s_f = 0.9: 0.9 - 0.7 / 8 in the middle."""
    schedule = Schedule(0.9, begin=10, end=30, every=5, initial=0.2)
    assert schedule.sparsity(20) == pytest.approx(0.9 - 0.7 / 8)
    assert (schedule.sparsity(0), schedule.sparsity(10), schedule.sparsity(30), schedule.sparsity(99)) == (0.2, 0.2, 0.9, 0.9)


def test_the_mean_over_the_cubic_ramp_is_three_quarters():
    schedule = Schedule(0.9, begin=0, end=10_000, every=1)
    mean = sum(schedule.sparsity(t) for t in range(10_000)) / 10_000
    assert mean / 0.9 == pytest.approx(0.75, abs=1e-4)
    assert 1 - schedule.average_density(10_000) == pytest.approx(0.75 * 0.9, abs=1e-4)


@pytest.mark.parametrize(
    ("curve", "values"),
    [
        ("linear", [0.0, 0.225, 0.45, 0.675, 0.9]),
        ("cosine", [0.0, 0.1318, 0.45, 0.7682, 0.9]),  # 0.9 (1 - cos(pi p)) / 2
        ("exponential", [0.0, 0.4377, 0.6838, 0.8222, 0.9]),  # density 1, 10^-1/4, 10^-1/2, 10^-3/4, 10^-1
        ("cubic", [0.0, 0.5203, 0.7875, 0.8859, 0.9]),
        ("constant", [0.9, 0.9, 0.9, 0.9, 0.9]),
        ("one-shot", [0.9, 0.9, 0.9, 0.9, 0.9]),
    ],
)
def test_curves_by_eye(curve, values):
    schedule = Schedule(0.9, begin=10, end=50, every=10, curve=curve)
    assert [round(schedule.sparsity(t), 4) for t in (10, 20, 30, 40, 50)] == values
    assert schedule.sparsity(9) == 0.0


def test_geometric_removes_the_same_share_at_every_update():
    """Three updates to 7/8: half of what is left at each of them, the first at begin."""
    schedule = Schedule(0.875, begin=100, end=300, every=100, curve="geometric")
    found = [schedule.sparsity(t) for t in (99, 100, 199, 200, 299, 300, 500)]
    assert found == pytest.approx([0, 0.5, 0.5, 0.75, 0.75, 0.875, 0.875])
    uneven = Schedule(0.875, begin=100, end=250, every=100, curve="geometric")  # updates at 100, 200, 250
    assert [uneven.sparsity(t) for t in uneven.updates()] == pytest.approx([0.5, 0.75, 0.875])


def test_the_published_geometric_ramp():
    """Half the weights in (47,200 - 12,500) / 100 + 1 = 348 updates: each takes 0.199 % of what is left."""
    schedule = Schedule(0.5, begin=12_500, end=47_200, every=100, curve="geometric")
    densities = [1.0] + [1 - schedule.sparsity(t) for t in schedule.updates()]
    assert len(densities) == 349
    shares = [1 - after / before for before, after in pairwise(densities)]
    assert min(shares) == pytest.approx(max(shares)) == pytest.approx(0.00199, abs=5e-6)


@given(st.floats(0.01, 0.99), st.integers(0, 50), st.integers(1, 400), st.integers(1, 60))
def test_geometric_is_the_powers_of_one_share(final, begin, span, every):
    schedule = Schedule(final, begin, begin + span, every, "geometric")
    updates = list(schedule.updates())
    r = 1 - (1 - final) ** (1 / len(updates))
    assert [1 - schedule.sparsity(t) for t in updates] == pytest.approx([(1 - r) ** (j + 1) for j in range(len(updates))])


@pytest.mark.parametrize(("final", "mean"), [(0.2, 0.896), (0.4, 0.783), (0.6, 0.655), (0.8, 0.497)])
def test_the_mean_density_over_a_geometric_ramp(final, mean):
    """``s / -ln(1 - s)``, up to one update's share."""
    schedule = Schedule(final, begin=0, end=10_000, every=10, curve="geometric")
    assert final / -math.log(1 - final) == pytest.approx(mean, abs=5e-4)
    assert schedule.average_density(10_000) == pytest.approx(mean, abs=1e-3)


def test_cycles_start_again_from_the_initial_sparsity():
    schedule = Schedule(0.8, begin=0, end=40, every=5, curve="cyclic", initial=0.1, cycles=2)
    assert [round(schedule.sparsity(t), 4) for t in (0, 10, 15, 20, 30, 39, 40)] == [
        0.1,
        0.7125,
        0.7891,
        0.1,
        0.7125,
        0.7999,
        0.8,
    ]


def test_the_last_update_lands_on_the_end_whatever_the_interval_divides():
    schedule = Schedule(0.5, begin=3, end=10, every=3)
    assert list(schedule.updates()) == [3, 6, 9, 10]
    assert schedule.sparsity(10) == 0.5
    assert list(Schedule(0.5, begin=3, end=10, every=100).updates()) == [3, 10]
    assert list(Schedule(0.5, begin=7, end=7).updates()) == [7]
    assert list(Schedule(0.5, begin=3, end=10, every=3, curve="one-shot").updates()) == [3]


@given(any_schedule(), st.integers(0, 400))
def test_begin_and_end_are_met_exactly(schedule, later):
    before = schedule.sparsity(schedule.begin - 1) if schedule.begin else schedule.initial
    assert before == schedule.initial
    assert schedule.sparsity(schedule.end) == schedule.sparsity(schedule.end + later) == schedule.final
    if schedule.begin < schedule.end and schedule.curve not in ("one-shot", "constant", "geometric"):
        assert schedule.sparsity(schedule.begin) == schedule.initial


@given(any_schedule([c for c in CURVES if c != "cyclic"]))
def test_sparsity_never_falls_and_stays_between_its_ends(schedule):
    values = [schedule.sparsity(t) for t in range(schedule.end + 2)]
    assert values == sorted(values)
    assert all(schedule.initial <= v <= schedule.final for v in values)


@given(any_schedule(["cubic", "cyclic"]))
def test_the_steps_of_a_cubic_shrink(schedule):
    cubic = Schedule(schedule.final, schedule.begin, schedule.end, schedule.every, "cubic", schedule.initial)
    values = [cubic.sparsity(t) for t in cubic.updates()]
    rises = [b - a for a, b in pairwise(values)]
    assert all(a >= b - 1e-12 for a, b in pairwise(rises))


@given(any_schedule())
def test_next_and_previous_agree_with_is_update(schedule):
    steps = range(schedule.end + 70)
    updates = [t for t in steps if schedule.is_update(t)]
    assert list(schedule.updates()) == updates
    for step in steps:
        assert schedule.next_update(step) == next((t for t in updates if t >= step), None)
        if schedule.curve != "one-shot":  # its schedule has nothing between updates to ask for
            assert schedule.previous_update(step) == next((t for t in reversed(updates) if t < step), None)


@given(any_schedule(), st.integers(1, 300))
def test_the_average_density_is_that_of_a_loop(schedule, total):
    density, kept = 1.0, 0.0  # masks do not exist before the first update
    for step in range(total):
        if schedule.is_update(step):
            density = 1 - schedule.sparsity(step)
        kept += density  # the optimizer step that follows
    assert schedule.average_density(total) == pytest.approx(kept / total, abs=1e-12)


def test_average_density_by_eye():
    """Dense for 2 of 10 steps, half for 4 (from step 2), a quarter for 4."""
    schedule = Schedule(0.75, begin=2, end=6, every=4, curve="linear", initial=0.5)
    assert schedule.average_density(10) == pytest.approx((2 * 1.0 + 4 * 0.5 + 4 * 0.25) / 10)
    with pytest.raises(BadInput, match="total_steps=0"):
        schedule.average_density(0)


# -- whose turn it is


def test_together_means_all_at_every_update():
    schedule = Schedule(0.5, begin=2, end=6, every=2)
    turns = [together(schedule, t, 3) for t in range(8)]
    assert turns == [None, None, Turn(range(3), 2), None, Turn(range(3), 4), None, Turn(range(3), 6), None]


def test_layerwise_by_eye():
    schedule = Schedule(0.5, begin=2, end=10, every=4)
    turns = {t: layerwise(schedule, t, 2) for t in range(12) if layerwise(schedule, t, 2)}
    assert turns == {
        2: Turn(range(2), 2),  # the first update has no steps before it
        4: Turn(range(0, 1), 6),
        6: Turn(range(1, 2), 6),
        8: Turn(range(0, 1), 10),
        10: Turn(range(1, 2), 10),
    }


@given(any_schedule([c for c in CURVES if c != "one-shot"]), st.integers(1, 90))
def test_every_layer_has_one_turn_an_interval_and_the_last_comes_with_the_update(schedule, layers):
    updates = list(schedule.updates())
    assert layerwise(schedule, updates[0], layers) == Turn(range(layers), updates[0])
    for after, target in pairwise(updates):
        turns = [turn for t in range(after + 1, target + 1) if (turn := layerwise(schedule, t, layers))]
        assert [i for turn in turns for i in turn.layers] == list(range(layers))  # in order, also with more layers than steps
        assert {turn.at for turn in turns} == {target}
        assert layerwise(schedule, target, layers).layers[-1] == layers - 1
    assert layerwise(schedule, schedule.end + 1, layers) is None
    assert all(layerwise(schedule, t, layers) is None for t in range(updates[0]))


def test_one_shot_takes_all_layers_at_once():
    schedule = Schedule(0.5, begin=3, end=9, curve="one-shot")
    assert [layerwise(schedule, t, 4) for t in (2, 3, 4, 9)] == [None, Turn(range(4), 3), None, None]


# -- bad input


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"final": 1.0}, "sparsity=1.0: give the share"),
        ({"final": 0.5, "initial": -0.1}, "initial_sparsity=-0.1"),
        ({"final": 0.5, "initial": 0.6}, "initial_sparsity=0.6 is above the final 0.5"),
        ({"final": 0.5, "begin": 8, "end": 7}, "begin=8 must not be negative or after end=7"),
        ({"final": 0.5, "begin": -1, "end": 7}, "begin=-1"),
        ({"final": 0.5, "every": 0}, "every=0"),
        ({"final": 0.5, "cycles": 0}, "cycles=0"),
        ({"final": 0.5, "curve": "cubik"}, "schedule='cubik' is unknown; use one of .*did you mean 'cubic'"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(BadInput, match=says):
        Schedule(**settings)


def test_moments():
    assert [resolve_step(v, 1000, "begin") for v in (0, 7, 1000, 0.0, 0.1, 0.0005, 1.0)] == [0, 7, 1000, 0, 100, 1, 1000]
    assert resolve_step(5000, None, "end") == 5000


@pytest.mark.parametrize(
    ("value", "total", "says"),
    [
        (1.5, 100, r"begin=1.5: a float is a share of training, from 0.0 to 1.0; for a step give an integer"),
        (-0.1, 100, "begin=-0.1"),
        (math.nan, 100, "begin=nan"),
        (0.5, None, "begin=0.5 is a share of training, so total_steps is needed"),
        (-3, 100, "begin=-3: a step is not negative"),
        (101, 100, "begin=101 is behind the last of 100 training steps"),
        (True, 100, "begin=True: give a step"),
        ("10%", 100, "begin='10%': give a step"),
    ],
)
def test_moments_that_cannot_be(value, total, says):
    with pytest.raises(BadInput, match=says):
        resolve_step(value, total, "begin")
