"""The example of the document, by the command, in processes of its own."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
testing = pytest.importorskip("typer.testing")
PAGE = (Path(__file__).parents[3] / "docs" / "studies.md").read_text(encoding="utf-8")


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S).group(1)


def test_the_example_of_the_document(tmp_path, monkeypatch):
    from secateurs.cli.app import app

    (tmp_path / "my_study.py").write_text(block("python"))
    (tmp_path / "oracle-digits.yaml").write_text(block("yaml"))
    command = block("sh").replace("--jobs 2", "--jobs 1").split()[1:]  # one process begins faster than two
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # put back afterwards; the command adds the current folder by itself
    first = testing.CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "Kendall tau-b" in first.output and "index.html" in first.output
    again = testing.CliRunner().invoke(app, [*command, "--json"])
    found = json.loads(again.stdout)
    assert len(found["sets"]) == 10 and found["failed"] == 0 and found["warnings"] == []
    assert found == json.loads((tmp_path / "oracle-digits" / "study.json").read_text())
    assert found["dense"] > 0.8
    assert len((tmp_path / "oracle-digits" / "results.jsonl").read_text().splitlines()) == 21
    reported = testing.CliRunner().invoke(app, ["report", "oracle-digits", "--out", "page"])
    assert reported.exit_code == 0, reported.output
    assert (tmp_path / "page" / "study.json").read_text() == (tmp_path / "oracle-digits" / "study.json").read_text()
