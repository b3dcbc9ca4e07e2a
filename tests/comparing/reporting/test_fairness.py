import pytest

from secateurs.comparing.reporting.fairness import NOTE, PASSED, WARNING, check
from secateurs.comparing.reporting.points import gather
from tests.comparing.made_up import failed, row, rows


def texts(made, level=WARNING, failures=()):
    return [found.text for found in check(gather(made, failures)) if found.level == level]


def changed(made, where, **changes):
    """The rows, with ``changes`` in those for which ``where`` holds."""
    return [{**r, **(changes if where(r) else {})} for r in made]


def said(made, **kw):
    found = texts(made, **kw)
    assert len(found) == 1, found
    return found[0]


def test_a_fair_comparison_has_no_warnings_and_says_what_was_checked():
    made = rows()
    assert texts(made) == []
    passed = texts(made, PASSED)
    for part in ("None of the 99 runs failed", "same budget of steps", "same 3 seeds", "stand beside every point",
                 "measured on 'test'", "3 pairs of data and model", "at least the bytes", "same dense model",
                 "sparsity asked for", "versions"):  # fmt: skip
        assert any(part in text for text in passed), part


def test_different_budgets_are_quoted_with_their_arms_and_only_once_for_all_points():
    made = changed(rows(), lambda r: r["arm"] == "gmp" and r["task"] == "digits", steps=1000)
    text = said(made)
    assert "training budgets differ at every point of 'digits'" in text
    assert "1,400 steps in batches of 64 for 'gmp'" in text and "600 steps in batches of 64 for 'dense', 'small-dense'" in text


def test_a_different_batch_size_is_a_different_budget():
    made = changed(rows(), lambda r: r["arm"] == "gmp" and r["task"] == "digits" and r["point"] == "90 %", batch=128)
    assert "at 90 % of 'digits': 600 steps in batches of 64" in said(made)


def test_scratch_b_is_meant_to_train_longer():
    longer = [row("digits", "scratch-b", "90 %", s, steps=1200) for s in (0, 1, 2)]
    assert texts(rows() + longer) == []
    assert any("up to 1,200 steps where the others have 600" in text for text in texts(rows() + longer, NOTE))


def test_the_cost_of_masks_taken_over_is_not_forgotten():
    own = [r for r in rows() if not r["protocol"].startswith("scratch")]
    taken = [row("digits", "scratch-e", "90 %", s, of="gmp") for s in (0, 1, 2)]
    assert not any("comes on top" in text for text in texts(own, NOTE))
    assert any("of 'scratch-e' on 'digits'" in text and "the cost of 'gmp'" in text for text in texts(own + taken, NOTE))


@pytest.mark.parametrize(("seeds", "words"), [((0,), "1 seed:"), ((0, 1), "2 seeds:")])
def test_few_seeds(seeds, words):
    assert [words in text for text in texts(rows(seeds=seeds))] == [True] * 3


def test_arms_with_other_seeds_are_named():
    made = [r for r in rows() if (r["task"], r["arm"], r["point"], r["seed"]) != ("digits", "gmp", "90 %", 2)]
    assert "'digits': 'gmp' at 90 % without seed 2." in said(made)


@pytest.mark.parametrize(
    ("arm", "words"),
    [("dense", "no dense model trained"), ("small-dense", "no dense model of the same size at 80 % and 90 %"),
     ("random", "no random pruning at 80 % and 90 %")],
)  # fmt: skip
def test_missing_baselines(arm, words):
    assert words in said([r for r in rows() if r["task"] != "digits" or r["arm"] != arm])


def test_a_metric_on_training_data():
    where = lambda r: r["task"] == "digits"  # noqa: E731
    assert "training data" in said(changed(rows(), where, tests_on_training_data=True))
    assert "training data" in said(changed(rows(), where, split="train"))
    mixed = changed(rows(), lambda r: r["task"] == "digits" and r["seed"] == 1, split="validation")
    assert "different data: test and validation" in said(mixed)


def test_a_single_point_warns_and_two_are_a_note():
    assert [("a single operating point, 90 %" in text) for text in texts(rows(points=("90 %",)))] == [True] * 3
    assert sum("2 operating points; 5 make a curve" in text for text in texts(rows(), NOTE)) == 3


def test_one_pair_of_data_and_model_warns_and_two_are_a_note():
    assert "one pair of data and model" in said(rows(tasks=("digits",)))
    assert any("2 pairs of data and model" in text for text in texts(rows(tasks=("digits", "letters")), NOTE))


def test_a_rival_with_fewer_bytes_warns_and_a_much_larger_one_is_a_note():
    small = lambda r: (r["task"], r["arm"], r["point"]) == ("digits", "small-dense", "90 %")  # noqa: E731
    size = row(arm="gmp", point="90 %")["bytes"]
    assert f"{size - 1:,} bytes against {size:,} of 'random' at 90 %" in said(changed(rows(), small, bytes=size - 1))
    assert any("2 times at 90 %" in text for text in texts(changed(rows(), small, bytes=2 * size), NOTE))


def test_different_start_models():
    made = changed(rows(), lambda r: (r["task"], r["arm"], r["seed"]) == ("digits", "gmp", 1), start=0.8)
    assert "different dense models at seed 1" in said(made) and "80.00 for 'gmp'" in said(made)


def test_a_sparsity_that_was_not_reached():
    gmp = lambda r: (r["task"], r["arm"], r["point"]) == ("digits", "gmp", "90 %")  # noqa: E731
    assert texts(changed(rows(), gmp, kept=82)) == []  # two layers may each be off by a weight
    assert "'gmp' at 90 % of 'digits' does not remove what was asked for (90 % of the selected weights)" in said(
        changed(rows(), gmp, kept=83)
    )


def test_a_compression_that_was_not_reached():
    asked = {"point": {"sparsity": None, "compression": 4.0}}
    made = row(arm="gmp", point="4x", determined_by=asked, sparsity=0.9375, kept=50)  # 200 + 50 of 1000: a quarter
    assert not any("asked for (" in text for text in texts([made]))
    assert any("(a network 4 times smaller): off by up to 50 weights" in text for text in texts([{**made, "kept": 100}]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"versions": {"python": "3.11.2", "torch": "2.7.0"}}, "version of torch: 2.6.0 in 98 runs; 2.7.0 in 1 run"),
     ({"threads": 4}, "threads: 1 in 98 runs; 4 in 1 run"), ({"device": "cuda"}, "the device: cpu in 98 runs; cuda in 1 run"),
     ({"code": {"model": "f" * 10}}, "the code of model of 'digits'")],
)  # fmt: skip
def test_runs_from_different_surroundings(changes, words):
    name = row("digits", "scratch-e of magnitude", "90 %", 2)["run"]
    assert words in said(changed(rows(), lambda r: r["run"] == name, **changes))


def test_a_row_that_does_not_say_where_it_ran_is_no_difference():
    assert texts(changed(rows(), lambda r: r["seed"] == 1, code={}, device=None)) == []


def test_settings_that_changed_between_runs_of_a_task():
    made = rows()
    settings = made[0]["determined_by"]
    made[0] = {**made[0], "determined_by": {**settings, "task": {**settings["task"], "steps": 7}}}
    assert "The settings of task 'digits' differ between its runs: steps." in said(made)


def test_settings_that_changed_between_seeds_of_an_arm():
    made = rows()
    settings = made[-1]["determined_by"]
    made[-1] = {**made[-1], "determined_by": {**settings, "arm": {**settings["arm"], "cap": 3.0}}}
    assert "'random' at 90 % of 'signs' differ between its seeds: cap." in said(made)


def test_failed_runs_are_told_with_their_error_and_counted_together():
    failures = [failed(seed=seed) for seed in (0, 1, 2, 3)]
    text = said(rows(), failures=failures)
    assert text.startswith("4 runs failed with ValueError: the loss is NaN at step 12 (") and "and 1 more)" in text
    assert "more\n" not in text and failures[0]["run"] in text


def test_what_the_seeds_cannot_tell_apart_is_counted():
    made = changed(rows(), lambda r: r["arm"] == "gmp" and r["seed"] == 0, value=0.5)
    unclear = "8 of 20 pairs of arms at one point of 'digits' cannot be told apart"
    assert any(text.startswith(unclear) for text in texts(made, NOTE))
    assert any(text.startswith("0 of 20 pairs") for text in texts(rows(), PASSED))
    assert any(text.startswith("20 of 20 pairs") for text in texts(rows(seeds=(0, 1)), NOTE))


def test_no_finished_run_is_no_error():
    assert len(texts([], failures=[failed()])) == 1
