import pytest

from secateurs.errors import BadInput
from secateurs.report import Metric, Spread, group, paired, spread, verdict

ROWS = [
    {"label": "a", "seed": 0, "score": 0.90},
    {"label": "a", "seed": 1, "score": 0.94},
    {"label": "b", "seed": 1, "score": 0.91},
    {"label": "b", "seed": 0, "score": 0.88},
]
SCORE = Metric("score", "score", "%", scale=100)


def test_mean_and_sample_deviation_by_eye():
    values = Spread((1.0, 2.0, 3.0))
    assert (values.mean, values.deviation) == (2.0, 1.0)
    assert Spread((7.0,)).deviation == 0.0


def test_rows_are_grouped_in_order_of_appearance():
    assert {label: [row["seed"] for row in rows] for label, rows in group(ROWS).items()} == {"a": [0, 1], "b": [1, 0]}


def test_differences_are_taken_seed_by_seed_whatever_the_order_of_rows():
    groups = group(ROWS)
    differences = paired(groups["a"], groups["b"], "score")
    assert differences.values == pytest.approx((0.02, 0.03))
    assert SCORE.show_difference(differences) == "+2.5 ± 0.7"


def test_rows_with_other_seeds_do_not_pair():
    with pytest.raises(BadInput, match=r"\[0, 1\].*\[0\]"):
        paired(ROWS[:2], ROWS[3:], "score")
    with pytest.raises(BadInput, match="cannot pair"):
        paired([ROWS[0], ROWS[0]], [ROWS[3], ROWS[2]], "score")


@pytest.mark.parametrize(
    ("differences", "higher", "word"),
    [
        ((0.1, 0.2), True, "ahead"),
        ((0.1, 0.2), False, "behind"),
        ((-0.1, -0.2), True, "behind"),
        ((-0.1, 0.2), True, "mixed"),
        ((0.0, 0.2), True, "mixed"),
        ((0.0, 0.0), False, "level"),
    ],
)
def test_verdict_says_what_every_repetition_showed(differences, higher, word):
    assert verdict(Spread(differences), Metric("x", "x", higher_is_better=higher)) == word


def test_numbers_in_print():
    assert SCORE.show(Spread((0.9864,))) == "98.6"
    assert SCORE.show(Spread((0.98, 0.99))) == "98.5 ± 0.7"
    assert SCORE.show_difference(Spread((-0.0001,))) == "+0.0"  # not "-0.0"
    assert Metric("bytes", "bytes", digits=0, repeated=False).show(Spread((14864.0, 14864.0))) == "14,864"


def test_a_missing_key_names_the_near_one():
    with pytest.raises(BadInput, match=r"no 'scores'.*'score'"):
        spread(ROWS, "scores")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_no_result(value):
    with pytest.raises(BadInput, match="not finite"):
        spread([{"label": "a", "score": value}], "score")


def test_no_rows_no_mean():
    with pytest.raises(BadInput, match="no rows"):
        spread([], "score")
