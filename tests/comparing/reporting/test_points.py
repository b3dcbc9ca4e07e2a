import math
import random

import pytest

from secateurs.comparing.reporting.points import gather, newest, pair
from secateurs.report.rows import Spread
from tests.comparing.made_up import failed, row, rows


def entry(task, arm, point=None):
    return next(e for e in task.entries if (e.arm, e.point) == (arm, point))


def only(made):
    return gather(made).tasks[0]


def test_order_does_not_depend_on_which_run_ended_first():
    made = rows()
    shuffled = random.Random(3).sample(made, len(made))
    assert gather(shuffled) == gather(made)
    task = gather(shuffled).tasks[0]
    assert [t.name for t in gather(shuffled).tasks] == ["digits", "letters", "signs"]
    assert task.labels == ["80 %", "90 %"]
    assert [e.arm for e in task.at("80 %")] == ["small-dense", "random", "gmp", "magnitude", "scratch-e of magnitude"]
    assert task.arms[0] == "dense"


def test_points_go_from_little_removed_to_much_whatever_their_labels():
    asked = {"8x": {"compression": 8.0}, "10 %": {"sparsity": 0.1}, "2x": {"compression": 2.0}, "90 %": {"sparsity": 0.9}}
    made = [row(arm="gmp", point=label, determined_by={"point": point}) for label, point in asked.items()]
    assert only(made).labels == ["10 %", "2x", "8x", "90 %"]


def test_mean_and_standard_error_by_eye():
    values = Spread((1.0, 2.0, 3.0))
    assert values.error == pytest.approx(1 / math.sqrt(3))
    assert Spread((1.0,)).error is None


def test_the_interval_is_students():
    low, high = Spread((1.0, 2.0, 3.0)).interval()
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert Spread((1.0, 2.0)).interval() is None
    wide = Spread((1.0, 2.0, 3.0)).interval(0.99)
    assert wide[0] < low and wide[1] > high


def test_differences_are_paired_over_common_seeds_and_say_how_many():
    made = [row(arm="gmp", point="90 %", seed=s, value=v) for s, v in ((0, 0.90), (1, 0.95), (2, 0.91))]
    made += [row(arm="magnitude", point="90 %", seed=s, value=v) for s, v in ((2, 0.93), (1, 0.92), (7, 0.10))]
    task = only(made)
    found = pair(entry(task, "gmp", "90 %"), entry(task, "magnitude", "90 %"), task.metric)
    assert found.seeds == (1, 2)
    assert found.differences.values == pytest.approx((0.03, -0.02))
    assert (found.signs, found.wins, found.verdict, found.whole, found.clear) == ((1, -1), 1, "mixed", False, False)


def test_no_common_seed_is_no_pair():
    task = only([row(arm="gmp", point="90 %", seed=0), row(arm="magnitude", point="90 %", seed=1)])
    assert task.pairs("90 %") == []
    assert task.against(entry(task, "gmp", "90 %"), "dense") is None


def test_lower_is_better_turns_wins_but_not_the_sign():
    less = {"metric": "perplexity", "direction": "lower", "percent": False}
    made = [row(arm=arm, point="90 %", seed=s, value=v + 0.01 * s * s, **less)
            for arm, v in (("gmp", 40.0), ("magnitude", 42.0)) for s in (0, 1, 2)]  # fmt: skip
    found = only(made).pairs("90 %")[0]
    assert found.ours.arm == "gmp" and found.differences.mean == pytest.approx(-2.0)
    assert (found.wins, found.verdict, found.clear) == (3, "ahead", True)


def test_baselines_belong_to_their_point_and_nothing_is_compared_with_itself():
    task = only(rows(tasks=("digits",)))
    gmp = entry(task, "gmp", "90 %")
    means = {role: task.against(gmp, role).differences.mean for role in ("dense", "small-dense", "random")}
    assert means == pytest.approx({"dense": -0.07, "small-dense": 0.03, "random": 0.13})
    assert task.against(entry(task, "random", "90 %"), "random") is None
    assert task.baseline("small-dense", "90 %").point == "90 %"
    assert len(task.pairs("90 %")) == 10


def test_a_random_arm_among_other_protocols_is_no_baseline():
    task = only([row(arm="reinit", point="90 %", protocol="reinitialised", method="random")])
    assert task.baseline("random", "90 %") is None


def test_starts_are_no_entries():
    start = row(arm="start", protocol="start")
    task = only([start, row(arm="gmp", point="90 %")])
    assert [e.arm for e in task.entries] == ["gmp"] and start in task.rows
    assert gather([start]).tasks == ()


def test_a_row_of_earlier_settings_gives_way_to_the_later_one():
    old, new = row(arm="gmp", point="90 %", run="old"), row(arm="gmp", point="90 %", run="new")
    other = row(arm="gmp", point="90 %", seed=1, run="other")
    assert newest([old, other, new]) == ([other, new], [old])
    fails = {**failed(seed=1), "run": "fails"}
    assert newest([old, other, fails]) == ([old, fails], [other])


@pytest.mark.parametrize(
    ("percent", "value", "shown"), [(True, 0.97321, "97.32"), (False, 45.3178, "45.32"), (False, 0.012345, "0.01235"),
                                    (False, 1234.6, "1,235"), (False, 0.0, "0.00")]
)  # fmt: skip
def test_digits_suit_the_metric(percent, value, shown):
    task = only([row(arm="gmp", point="90 %", value=value, percent=percent)])
    assert task.metric.show(task.entries[0].spread("value")) == shown
