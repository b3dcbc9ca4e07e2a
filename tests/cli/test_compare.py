import importlib
import json
import sys

import pytest

from secateurs.cli import comparing

TOYS = """
import torch
from torch import nn


def build(outputs=3):
    return nn.Linear(6, outputs)


def load():
    drawn = torch.randn(96, 6, generator=torch.Generator().manual_seed(1))
    classes = drawn[:, :3].argmax(1)
    return {"train": (drawn[:64], classes[:64]), "test": (drawn[64:], classes[64:])}


def odd_load():
    print("on standard output, where only JSON belongs")
    return load()


def loss(model, batch):
    raise RuntimeError("a [bold]cross[/bold]\\nentropy")
"""
RECIPE = """
name: toy
seeds: 1
sparsities: [0.5]
methods: [magnitude]
tasks:
  - {name: toy, model: toys_of_compare:build, data: toys_of_compare:load, steps: 3, batch: 16}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with ``toys_of_compare.py`` and ``toy.yaml`` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "toys_of_compare", raising=False)
    (tmp_path / "toys_of_compare.py").write_text(TOYS)
    (tmp_path / "toy.yaml").write_text(RECIPE)
    importlib.invalidate_caches()
    return tmp_path


def test_from_a_recipe_to_a_page(folder, command):
    pytest.importorskip("plotly")
    result = command("compare", "toy.yaml", "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert "magnitude" in result.stdout and "Results: results/toy/results.jsonl" in result.stdout
    assert "has 1 seed" in result.stdout and "[3/3] toy" in result.stderr
    printed = json.loads(command("compare", "toy.yaml", "--json").stdout)  # nothing is left to do
    assert {row["arm"] for row in printed["table"]} == {"magnitude", "dense", "random"}
    assert printed["failures"] == [] and printed["results"] == "results/toy/results.jsonl" and printed["fairness"]
    result = command("report", "results/toy")
    assert result.exit_code == 0, result.output
    assert (folder / "results" / "toy" / "report" / "index.html").is_file()


def test_failed_runs_give_exit_code_1_and_json_is_alone_on_stdout(folder, command):
    changed = RECIPE.replace("steps: 3", "steps: 3, loss: toys_of_compare:loss").replace("load,", "odd_load,")
    (folder / "toy.yaml").write_text(changed)
    result = command("compare", "toy.yaml", "--out", "out", "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["table"] == [] and {row["error"]["type"] for row in printed["failures"]} == {"RuntimeError"}, printed
    assert "3 of 3 runs failed" in result.stderr and "RuntimeError: a [bold]cross[/bold] entropy" in result.stderr
    logs = list((folder / "out" / "logs").iterdir())
    assert logs and all("on standard output" in log.read_text() for log in logs)


def test_list_runs_nothing_and_imports_nothing(folder, command, as_json):
    (folder / "toys_of_compare.py").write_text("raise SystemExit('imported')")
    result = command("compare", "toy.yaml", "--list")
    assert result.exit_code == 0 and "3 runs, 3 to do with 9 steps in all" in result.stdout
    listed = as_json("compare", "toy.yaml", "--list")
    assert [(run["what"], run["done"], run["steps"]) for run in listed["runs"] if "magnitude" in run["what"]] == [
        ("toy · magnitude · 50 % · seed 0", False, 3)
    ]
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.yaml"], "nowhere.yaml"),
        (["toy.yaml", "--jobs", 2, "--ray", "local"], "jobs=2 is for processes of this machine"),
        (["broken.yaml"], "did you mean 'methods'"),
        (["wrong.yaml"], "did you mean 'build'"),
        (["foreign.yaml", "--out", "foreign"], "schema"),
    ],
)
def test_bad_input_gives_exit_code_2_and_one_line(folder, command, words, said):
    (folder / "broken.yaml").write_text(RECIPE.replace("methods:", "method:"))
    (folder / "wrong.yaml").write_text(RECIPE.replace(":build", ":bild"))
    (folder / "foreign.yaml").write_text(RECIPE)
    (folder / "foreign").mkdir()
    (folder / "foreign" / "results.jsonl").write_text('{"schema": 0, "run": "a", "status": "done"}\n')
    result = command("compare", *words)
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1


def test_an_interrupt_says_how_to_go_on(folder, command, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "compare", interrupted)
    result = command("compare", "toy.yaml")
    assert result.exit_code == 130
    assert result.stderr == (
        "secateurs compare: interrupted; finished runs are kept in results/toy/results.jsonl, the same command goes on\n"
    )


@pytest.mark.parametrize("words", [("report", "nowhere"), ("study", "oracle", "nowhere.yaml")])
def test_the_other_commands_say_what_is_missing(folder, command, words):
    result = command(*words)
    assert result.exit_code == 2 and "nowhere" in result.stderr
