"""From rows of a study to its verdict, its tables and its words."""

import json
import random

import pytest

from secateurs.comparing.studies.outcome import OracleOutcome
from secateurs.comparing.studies.page import markdown, sentences, write
from secateurs.comparing.studies.published import published_table
from secateurs.errors import BadInput

pytest.importorskip("scipy")


def ordered(rows, values):
    """The study with the sets' metric replaced, from the lowest loss before to the highest."""
    by_loss = dict(zip(sorted({row["loss_before"] for row in rows if "study" in row}), values, strict=True))
    return [{**row, "value": by_loss[row["loss_before"]]} if "study" in row else row for row in rows]


def test_repeats_are_averaged_and_the_order_of_rows_does_not_matter(study_rows):
    outcome = OracleOutcome(study_rows)
    shuffled = random.Random(0).sample(study_rows, len(study_rows))
    assert [s.value for s in outcome.sets] == pytest.approx([0.90, 0.93, 0.92, 0.88, 0.85])
    assert [s.repeats for s in outcome.sets] == [(0, 1)] * 5
    assert outcome.to_dict() == OracleOutcome(shuffled).to_dict()
    assert outcome.anomaly.oracle == 0 and outcome.anomaly.ratio == 2 / 5
    assert outcome.warnings == []
    assert json.loads(json.dumps(outcome.to_dict(), allow_nan=False))["dense"] == 0.95


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.95, 0.94, 0.93, 0.92, 0.91), "correlated"),
        ((0.91, 0.92, 0.93, 0.94, 0.95), "reversed"),
        ((0.93, 0.91, 0.95, 0.92, 0.94), "not correlated"),
        ((0.95, 0.94, 0.93, 0.92, 0.92), "correlated"),
        ((0.9, 0.9, 0.9, 0.9, 0.9), "undecided"),
    ],
)
def test_verdict(study_rows, values, verdict):
    outcome = OracleOutcome(ordered(study_rows, values))
    assert outcome.verdict == verdict
    assert sentences(outcome)[0].endswith(f"({verdict}).") or verdict == "undecided"


def test_verdict_turns_with_the_direction(study_rows):
    rows = ordered(study_rows, (10.0, 11.0, 12.0, 13.0, 14.0))
    rows = [{**row, "metric": "perplexity", "direction": "lower", "percent": False} for row in rows]
    outcome = OracleOutcome(rows)
    assert outcome.verdict == "correlated" and outcome.anomaly.better == 0
    assert "tau at least 0.2" in sentences(outcome)[0]


def test_sentences_say_the_numbers(study_rows):
    said = sentences(OracleOutcome(study_rows))
    assert "(kept: 0 1), was beaten by 2 of 5 sets after retraining (40.0 %)" in said[1]
    assert "oracle's final top-1 is +0.40 points, the best set's +3.40 points" in said[2]
    assert "standard deviation of 3.21 (top-1, %); chance alone" in said[3] and said[3].endswith("would give 0.00.")
    assert said[4] == "Retraining took 60 steps, the dense training 300."


def test_chance_is_what_repeats_disagree_about(study_rows):
    """One value of ten is 0.04 off: its set, repeat and total mean take a half, a fifth and a tenth of it along."""
    rows = [{**row, "value": row["value"] + 0.04} if row["run"] == "cell-(0, 1)-0" else row for row in study_rows]
    rest = [0.04 * (1 - 1 / 2 - 1 / 5 + 1 / 10), 0.04 * (0 - 0 - 1 / 5 + 1 / 10)]  # of its set; of each other one
    expected = (2 * rest[0] ** 2 + 8 * rest[1] ** 2) / 4 / 2
    assert OracleOutcome(study_rows).chance == pytest.approx(0, abs=1e-12)
    assert OracleOutcome(rows).chance == pytest.approx(expected**0.5)
    once = OracleOutcome([row for row in study_rows if row.get("repeat") == 0])
    assert once.chance is None and "retrained once" in sentences(once)[3]


def test_a_brief_retraining_is_called_so(study_rows):
    brief = [{**row, "steps": 20} if "study" in row else row for row in study_rows]
    assert "may only echo the loss before it" in sentences(OracleOutcome(brief))[4]


def test_nothing_is_left_out_in_silence(study_rows, cell_row, failed_row):
    other = cell_row((0, 1), 0, 0.4, 0.9, 0.1)
    other["determined_by"]["threads"] = 2
    missing = [row for row in study_rows if row["run"] != "cell-(0, 1)-1"]
    changed = [{**row, "loss_before": 0.61} if row["run"] == "cell-(0, 2)-1" else row for row in missing]
    outcome = OracleOutcome([other, *changed, failed_row("broken")], ["a line was cut"])
    assert len(outcome.sets) == 5
    for said, warning in zip(("a line was cut", "1 retraining of other settings", "1 run failed; the first: broken: NotFinite: "
                              "the loss is nan", "between 1 and 2 retrainings", "differs between repeats"),
                             outcome.warnings, strict=True):  # fmt: skip
        assert said in warning
    assert all(f"- Warning: {warning}" in markdown(outcome) for warning in outcome.warnings)


def test_nothing_finished(start_row, failed_row):
    with pytest.raises(BadInput, match="no finished retraining; NotFinite: the loss is nan"):
        OracleOutcome([start_row(), failed_row("broken")])


def test_tables(study_rows):
    outcome = OracleOutcome(study_rows)
    assert [line[0] for line in outcome.table().lines] == ["loss before, top-1", "", "", "loss before, final loss", "", ""]
    assert outcome.sets_table().lines[0] == ("0 1", "oracle", "0.5000", "90.00 ± 1.41", "-5.00 ± 1.41", "0.1000")
    assert len(published_table().lines) == 16 and ("conv1", "80 %", "+0.24", "57.8 %") in published_table().lines


def test_written_page_is_whole_and_the_same_each_time(study_rows, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    for name in ("a", "b"):
        write(OracleOutcome([{**row, "name": "<b>tiny</b>"} for row in study_rows]), tmp_path / name)
    names = {"index.html", "scatter.png", "scatter-dark.png", "study.md", "study.json"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    page = (tmp_path / "a" / "index.html").read_text()
    assert "&lt;b&gt;tiny" in page and "<b>tiny" not in page and "3 of the 5 filters of conv1.weight" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "5 of the 10 ways to remove" in page
