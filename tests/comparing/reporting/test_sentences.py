from secateurs.comparing.reporting.points import gather
from secateurs.comparing.reporting.sentences import findings, how, opening
from secateurs.comparing.reporting.words import count, listed, quoted
from tests.comparing.made_up import row, rows


def test_the_opening_says_what_was_compared():
    assert opening(gather(rows(tasks=("digits",)))) == (
        "3 methods beside dense, random and small-dense on digits (top-1; 80 % and 90 %; 3 seeds): 33 runs."
    )


def test_the_best_mean_and_how_it_stands_to_the_baselines():
    assert findings(gather(rows()).tasks[0])[1] == (
        "At 90 %, 'gmp' has the highest mean, 88.10 ± 0.06 %, clear of all others: -7.00 ± 0.00 points to dense, "
        "+3.00 ± 0.00 points to small-dense and +13.00 ± 0.00 points to random, with that sign on every one of 3 seeds."
    )


def test_what_cannot_be_told_apart_and_seeds_that_disagree_are_said():
    made = [{**r, "value": 0.851} if (r["arm"], r["point"], r["seed"]) == ("gmp", "90 %", 0) else r for r in rows()]
    made = [{**r, "value": r["value"] + 0.025} if (r["arm"], r["point"]) == ("small-dense", "90 %") else r for r in made]
    said = findings(gather(made).tasks[0])[1]
    assert "('magnitude' and 'scratch-e of magnitude' cannot be told apart from it)" in said
    assert "points to small-dense, the seeds disagree: ahead on 2 of 3;" in said


def test_two_seeds_rank_nothing():
    assert "88.05 ± 0.05 %, but 2 seeds rank nothing:" in findings(gather(rows(seeds=(0, 1))).tasks[0])[1]
    one = findings(gather(rows(seeds=(0,))).tasks[0])[1]
    assert "but 1 seed ranks nothing" in one and "+3.00 points to small-dense, ahead on the one seed there is" in one


def test_the_lowest_is_best_where_less_is_better():
    less = {"metric": "perplexity", "direction": "lower", "percent": False}
    places = (("gmp", "90 %", 40), ("magnitude", "90 %", 42), ("dense", None, 30))
    made = [row(arm=arm, point=point, seed=s, value=v + s / 10, **less) for arm, point, v in places for s in range(3)]
    assert findings(gather(made).tasks[0]) == [
        "At 90 %, 'gmp' has the lowest mean, 40.10 ± 0.06, clear of all others: +10.00 ± 0.00 to dense, with that sign on "
        "every one of 3 seeds."
    ]


def test_a_scratch_b_that_leads_did_so_with_more_steps():
    made = [*rows(tasks=("digits",)), *(row("digits", "scratch-b", "90 %", s, steps=1200, value=0.9) for s in range(3))]
    assert "'scratch-b' (trained longer, for equal compute) has the highest mean, 90.00" in findings(gather(made).tasks[0])[1]


def test_a_point_of_baselines_alone_has_nothing_to_say():
    assert findings(gather(rows(arms=("small-dense", "random"))).tasks[0]) == []


def test_how_it_was_run():
    said = " ".join(how(gather(rows(tasks=("digits",)))))
    for part in ("33 runs on cpu, threads: 1", "0.04 hours", "torch 2.6.0", "400 steps of dense training and 200 steps per run",
                 "sgd at 0.1 (constant)", "median of 30 calls in turns", "never the best of several"):  # fmt: skip
        assert part in said, part


def test_lists_in_words():
    assert listed([]) == "none" and listed("a") == "a" and listed("abc") == "a, b and c"
    assert listed("abcd", most=2) == "a, b and 2 more"
    assert quoted("abcd", most=2) == "'a', 'b' and 2 more" and quoted("ab") == "'a' and 'b'"
    assert (count(1, "seed"), count(1200, "run")) == ("1 seed", "1,200 runs")
