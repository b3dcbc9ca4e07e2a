import json
import sys

import pytest

from secateurs.cli import reporting
from secateurs.comparing.outcome import Outcome
from secateurs.errors import BadInput, MissingExtra
from tests.comparing.made_up import failed, row, rows


def write(path, made, end=""):
    path.write_text("".join(json.dumps(r) + "\n" for r in made) + end)
    return path


def test_done_and_failed_rows_are_told_apart():
    made = [*(r for r in rows() if r["run"] != failed()["run"]), failed()]
    outcome = Outcome(made)
    assert len(outcome.rows) == 98 and [r["run"] for r in outcome.failures] == [failed()["run"]]
    assert outcome.name == "made up"
    assert any("1 run failed with ValueError" in text for text in outcome.fairness())


def test_a_file_and_its_folder_are_the_same_outcome(tmp_path):
    file = write(tmp_path / "results.jsonl", rows())
    assert Outcome.read(file).table() == Outcome.read(tmp_path).table() == Outcome(rows()).table()


def test_a_line_cut_short_is_a_warning_and_no_loss(tmp_path):
    whole = Outcome(rows())
    outcome = Outcome.read(write(tmp_path / "results.jsonl", rows(), end='{"schema": 1, "run": "dig'))
    assert len(outcome.warnings) == 1 and "line 100" in outcome.warnings[0]
    assert outcome.table() == whole.table()
    assert outcome.markdown() == whole.markdown()  # what was cut off has been done again since


def test_no_results_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match="nowhere"):
        Outcome.read(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no finished run to report; 1 failed"):
        Outcome([failed()]).write(tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"value": None}, "lacks 'value'"), ({"value": float("nan")}, "lacks 'value'"), ({"seed": "0"}, "lacks 'seed'"),
     ({"arm": 3}, "lacks 'arm'"), ({"status": "odd"}, "status 'odd'")],
)  # fmt: skip
def test_a_row_that_is_no_row_is_left_out_and_told(changes, words):
    odd = {**row(arm="gmp", point="90 %", seed=7), **changes, "run": "odd one"}
    outcome = Outcome([*rows(), odd])
    assert len(outcome.rows) == 99
    assert len(outcome.warnings) == 1 and "'odd one'" in outcome.warnings[0] and words in outcome.warnings[0]


def test_rows_of_earlier_settings_are_left_out_and_told():
    old = {**row(arm="gmp", point="90 %"), "run": "before", "value": 0.1}
    outcome = Outcome([old, *rows()])
    assert outcome.table() == Outcome(rows()).table()
    assert "1 rows are of other settings" in outcome.warnings[0] and "'before'" in outcome.warnings[0]


def test_settings_that_were_changed_and_changed_back_are_those_of_the_last_comparison(tmp_path):
    tried = {**row(arm="gmp", point="90 %"), "run": "tried in between", "value": 0.1}
    write(tmp_path / "results.jsonl", [*rows(), tried])
    assert Outcome.read(tmp_path).table() != Outcome(rows()).table()
    (tmp_path / "runs.json").write_text(json.dumps([r["run"] for r in rows()]))
    outcome = Outcome.read(tmp_path)
    assert outcome.table() == Outcome(rows()).table() and "'tried in between'" in outcome.warnings[0]
    (tmp_path / "runs.json").write_text("[")
    with pytest.raises(BadInput, match=r"runs\.json' is not JSON"):
        Outcome.read(tmp_path)


def test_the_documents_do_not_depend_on_the_clock_or_the_order(tmp_path):
    made = [{**r, "seconds": {"training": 1e3, "total": 2e3}, "latency": None} for r in reversed(rows())]
    one, other = Outcome(rows())._documents(), Outcome(made)._documents()
    assert {name for name in one if one[name] != other[name]} == {"times.md"}


def test_everything_is_written(tmp_path):
    for needed in ("jinja2", "matplotlib", "plotly"):
        pytest.importorskip(needed)
    outcome = Outcome([*rows(tasks=("digits", "signs/1", "Signs 1")), failed("digits", "gmp", "90 %", 5)])
    page = outcome.write(tmp_path / "a" / "report")
    assert page == tmp_path / "a" / "report" / "index.html"
    written = {path.name for path in page.parent.iterdir()}
    pictures = {"digits.png", "signs-1.png", "signs-1-2.png"}
    assert written == {"index.html", "table.md", "pairs.md", "layers.md", "times.md", *pictures}
    for name in ("table.md", "pairs.md", "layers.md", "times.md"):
        text = (page.parent / name).read_text()
        assert text.count("\n## ") == 3 and "1 run failed with ValueError" in text
    assert (page.parent / "table.md").read_text() == outcome.markdown()


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(BadInput, match="is a file"):
        Outcome(rows()).write(tmp_path / "report")
    assert (tmp_path / "report").read_text() == "mine"


def test_pandas_has_the_numbers_of_the_table():
    pytest.importorskip("pandas")
    frame = Outcome(rows()).to_pandas().set_index(["task", "arm", "point"])
    assert len(frame) == 33
    assert frame.loc[("digits", "gmp", "90 %"), "vs_dense"] == pytest.approx(-0.07)


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="pip install pandas"):
        Outcome(rows()).to_pandas()


def test_the_command_prints_the_table_and_says_where_the_page_is(tmp_path, capsys):
    for needed in ("jinja2", "matplotlib", "plotly"):
        pytest.importorskip(needed)
    write(tmp_path / "results.jsonl", rows(tasks=("digits",)), end="{")
    reporting.report(tmp_path, None, False)
    out, err = capsys.readouterr()
    assert "88.10 ± 0.06" in out and f"page: {tmp_path / 'report' / 'index.html'}" in out
    assert "line 34" in err and "one pair of data and model" in err
    reporting.report(tmp_path / "results.jsonl", tmp_path / "other", True)
    said = json.loads(capsys.readouterr().out)
    assert said["page"] == str(tmp_path / "other" / "index.html") and len(said["table"]) == 11
    assert any("line 34" in text for text in said["warnings"])
