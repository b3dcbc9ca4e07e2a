"""The scaling study: rows in, a law fitted to dense runs, errors of sparse ones, pages."""

import csv
import itertools
import json

import pytest

from secateurs.comparing.studies.scaling import Grown, ScalingOutcome, read_runs
from secateurs.core.scaling import ScalingLaw
from secateurs.errors import BadInput

LAW = ScalingLaw(E=1.7, A=400.0, alpha=0.34, B=410.0, beta=0.28)


def rows(sparse=True):
    dense = [{"label": "dense", "parameters": n, "tokens": d, "loss": LAW(n, d)}
             for n, d in itertools.product((1e7, 1e8, 1e9), (1e9, 1e10, 1e11))]  # fmt: skip
    if not sparse:
        return dense
    ramp = {"label": "ramp", "parameters": 1e9, "tokens": 5e9}
    shares = ((0.9, 0.8), (0.7, 0.5), (0.4, 0.1))
    return dense + [{**ramp, "average_density": a, "density": s, "loss": LAW(a * 1e9, 5e9)} for a, s in shares]


def outcome(sparse=True):
    return ScalingOutcome([Grown(**row) for row in rows(sparse)])


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps({**row, "seconds": 3}) + "\n" for row in rows()))
    return path


def test_sparse_runs_that_follow_the_law_by_their_average_are_predicted():
    found = outcome()
    assert found.mean_error(found.sparse) < 1e-3 < 0.01 < found.mean_error(found.sparse, "final")
    assert found.mean_error(found.sparse, "dense") > 0.005
    assert "the average size predicts best" in found.sentences()[1]
    assert found.law.alpha == pytest.approx(0.34, rel=1e-2)
    assert found.joint.alpha == pytest.approx(0.34, rel=1e-2)


def test_another_size_is_said_to_be_better_where_it_is():
    runs = [Grown(**{**row, "loss": LAW(row["parameters"], row["tokens"])}) for row in rows()]  # as if pruning cost nothing
    assert "here the size before pruning predicts better than the average one" in ScalingOutcome(runs).sentences()[1]


def test_dense_runs_alone_make_a_law_and_no_judgement():
    found = outcome(sparse=False)
    assert found.joint is None and found.to_dict()["mean_error"]["sparse"] is None
    assert "No run is sparse" in found.sentences()[1]
    assert len(found.table().sections) == len(found.law_table().lines) == 1


def test_repetitions_share_a_line():
    runs = [Grown(**row) for row in rows()]
    again = [Grown("ramp", 1e9, 5e9, loss, 0.7, 0.5) for loss in (2.9, 3.1)]
    lines = ScalingOutcome([*runs, *again]).table().lines
    assert len(lines) == 12 and sum("±" in line[5] for line in lines) == 1


def test_a_csv_reads_as_the_same_runs(table, tmp_path):
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["label", "parameters", "tokens", "loss", "average_density", "density", "note"])
        writer.writeheader()
        writer.writerows(rows())  # dense rows leave the shares empty
    assert read_runs(path) == read_runs(table) == [Grown(**row) for row in rows()]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"parameters": 1, "tokens": 2}', r"a\.jsonl', line 1: there is no 'loss'; a run has parameters, tokens"),
        ("a.jsonl", '{"parameters": -1, "tokens": 2, "loss": 3}', "parameters=-1 is not a number above 0"),
        ("a.jsonl", '{"parameters": true, "tokens": 2, "loss": 3}', "parameters=True"),
        ("a.jsonl", '{"parameters": 1, "tokens": 2, "loss": NaN}', "loss=nan"),
        ("a.jsonl", '{"parameters": 1, "tokens": 2, "loss": 3, "density": 1.5}', "density=1.5 is not a share above 0 and up"),
        ("a.jsonl", "{", "line 1: not JSON"),
        ("a.jsonl", "[1]", "line 1: a list, not a mapping"),
        ("a.jsonl", "\n", "hold no run"),
        ("a.csv", "parameters,tokens,los\n1,2,3\n", "line 2: there is no 'loss'.*did you mean 'los'"),
        ("a.csv", "parameters,tokens,loss\n1,2,x\n", "loss='x' is not a number above 0"),
        ("a.txt", "parameters", r"give a \.csv or a \.jsonl file"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=says):
        read_runs(tmp_path / name)


def test_too_few_dense_runs_are_refused():
    with pytest.raises(BadInput, match=r"the dense runs, those with .*: 2 runs of 1 sizes and 2 numbers of tokens do not"):
        ScalingOutcome([Grown("a", 1e6, 1e7, 3.0), Grown("a", 1e6, 2e7, 2.9), Grown("b", 1e6, 1e7, 3.1, 0.5, 0.2)])


def test_the_command_writes_a_page_and_prints_json(table, tmp_path):
    pytest.importorskip("matplotlib")
    testing = pytest.importorskip("typer.testing")
    from secateurs.cli.app import app

    out = tmp_path / "out"
    done = testing.CliRunner().invoke(app, ["study", "scaling", str(table), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "the average size predicts best" in done.output
    assert sorted(p.name for p in out.iterdir()) == ["index.html", "scaling-dark.png", "scaling.png", "study.json", "study.md"]
    assert "the average size predicts best" in (out / "index.html").read_text()
    again = testing.CliRunner().invoke(app, ["study", "scaling", str(table), "--out", str(out), "--json"])
    assert json.loads(again.stdout) == json.loads((out / "study.json").read_text())
