import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.comparing.reporting.axes import AXES, scales, span, tick_text, ticks, usable
from secateurs.comparing.reporting.points import gather
from tests.comparing.made_up import row, rows


def task(made=None):
    return gather(made or rows(tasks=("digits",))).tasks[0]


@given(st.floats(1e-3, 1e9), st.floats(1.001, 1e6))
def test_a_logarithmic_axis_always_has_a_few_round_ticks_inside(low, times):
    marks = ticks(low, low * times)
    assert 4 <= len(marks) <= 20 and marks == sorted(set(marks))
    assert all(low * (1 - 1e-9) <= mark <= low * times * (1 + 1e-9) for mark in marks)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(1, 2e4, "1, 10, 100, 1 k, 10 k"), (3, 60, "5, 10, 20, 50"), (4, 22, "4, 6, 8, 10, 15, 20"),
     (1010, 1040, "1.01 k, 1.015 k")],
)  # fmt: skip
def test_ticks_by_eye(low, high, shown):
    assert ", ".join(map(tick_text, ticks(low, high))).startswith(shown)


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (20.0, "20"), (5000.0, "5 k"), (2.5e6, "2.5 M"), (3e9, "3 G")])
def test_tick_texts(value, text):
    assert tick_text(value) == text


@given(st.lists(st.floats(1e-6, 1e6), max_size=5), st.booleans())
def test_a_span_has_room_for_all_values(values, logarithmic):
    low, high = span(values, logarithmic)
    assert low < high and all(low < value < high for value in values)


def test_costs_of_a_point():
    gmp = next(e for e in task().entries if (e.arm, e.point) == ("gmp", "90 %"))
    shown = {axis.label: axis.of(task(), gmp) for axis in AXES}
    expected = {"density": 28.0, "bytes": 1120.0, "multiply-adds": 10.0, "latency": 0.8, "training cost": 456.0}
    assert shown == pytest.approx(expected)


def test_an_axis_nobody_has_a_place_on_is_left_out():
    made = [{**r, "latency": None} for r in rows(tasks=("digits",))]
    assert [axis.label for axis in usable(task(made))] == ["density", "bytes", "multiply-adds", "training cost"]


def test_the_logarithm_of_the_error_comes_first_where_a_ruined_model_squeezes_the_rest():
    assert [s.label for s in scales(task())] == ["top-1", "error (log)"]
    ruined = [{**r, "value": 0.1 if r["arm"] == "random" else r["value"]} for r in rows(tasks=("digits",))]
    assert [s.label for s in scales(task(ruined))] == ["error (log)", "top-1", "close-up"]


def test_a_close_up_lets_random_pruning_leave_the_plot():
    ruined = task([{**r, "value": 0.1 if r["arm"] == "random" else r["value"]} for r in rows(tasks=("digits",))])
    whole, close = (scale.range(ruined) for scale in scales(ruined)[1:])
    assert whole[0] < 10 and close[0] > 80 and whole[1] > 95.1 < close[1]


def test_a_perfect_model_has_no_place_on_a_logarithmic_error():
    perfect = task([row(arm=arm, point="90 %", value=v) for arm, v in (("gmp", 1.0), ("magnitude", 0.9))])
    log = next(scale for scale in scales(perfect) if scale.logarithmic)
    assert log.place(perfect, 1.0) is None and log.place(perfect, 0.9) == pytest.approx(10.0)
    assert all(map(math.isfinite, log.range(perfect)))


def test_what_should_be_low_has_its_best_on_top():
    less = {"metric": "perplexity", "direction": "lower", "percent": False}
    low = task([row(arm="gmp", point="90 %", value=40.0, **less), row(value=30.0, **less)])
    assert [(s.label, s.reversed) for s in scales(low)] == [("perplexity", True)]
