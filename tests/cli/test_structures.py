"""secateurs plan, advise, and prune where whole structures go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import secateurs as sc
from secateurs.cli.examples import example_of
from secateurs.errors import BadInput
from tests.planning.nets import Attention, Residual, Tagger
from tests.planning.stacks import Stack

FACTORY = """
import torch
from tests.planning.nets import Attention, Residual, convolutions

def residual():
    return Residual().eval()

def attention():
    return Attention().eval()
"""
NET = ("res.safetensors", "--factory", "nets5:residual", "--input", "2x3x8x8")


@pytest.fixture
def nets(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a residual network and one with attention in it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    (here / "nets5.py").write_text(FACTORY)
    save_file(Residual().state_dict(), here / "res.safetensors")
    save_file(Attention().state_dict(), here / "att.safetensors")
    return here


def test_prune_writes_a_smaller_model_that_loads(nets: Path, as_json, command) -> None:
    told = as_json("prune", *NET, "--method", "channels", "--flops", 0.5, "--out", "half")
    assert told["after"]["multiply_adds"] <= told["before"]["multiply_adds"] // 2
    assert told["verified"]["ok"] and len(told["verified"]["checks"]) > 3
    model = sc.load("half", Residual)
    assert sum(p.numel() for p in model.parameters()) == told["after"]["parameters"] < told["before"]["parameters"]
    again = command("verify", "half", "--factory", "nets5:residual")
    assert again.exit_code == 0, again.stderr
    assert "ok: planned parameters" in again.stdout


def test_prune_tells_what_it_saved(nets: Path, command) -> None:
    result = command("prune", *NET, "--structure", "channels", "--ratio", 0.3, "--scope", "local", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert "multiply-adds" in result.stdout and "the model returns it (" in result.stdout and "BROKEN" not in result.stdout


def test_plan_changes_nothing_and_may_be_written(nets: Path, as_json) -> None:
    before = {file.name: file.read_bytes() for file in nets.iterdir() if file.is_file()}
    told = as_json("plan", *NET, "--method", "channels", "--params", "600", "--out", "planned")
    assert told["after"]["parameters"] <= 600 < told["before"]["parameters"]
    assert {row["reason"] for row in told["frozen"]} == {"an input of the model", "the model returns it"}
    assert {name: (nets / name).read_bytes() for name in before} == before
    plan = sc.GroupPlan.load("planned")
    assert plan.after.parameters == told["after"]["parameters"]
    assert json.loads((nets / "planned" / "plan.json").read_text())["kind"] == "groups"


def test_plan_is_shown_as_a_table(nets: Path, command) -> None:
    shown = command("plan", *NET, "--method", "channels", "--flops", 0.5)
    assert shown.exit_code == 0 and "stem.weight:0" in shown.stdout and "bytes" in shown.stdout
    occupied = command("plan", *NET, "--method", "channels", "--flops", 0.5, "--out", ".")
    assert occupied.exit_code == 2 and "exists" in occupied.stderr


def test_several_structures_with_commas(nets: Path, as_json) -> None:
    net = ("att.safetensors", "--factory", "nets5:attention", "--input", "2x5x6")
    told = as_json("plan", *net, "--structure", "heads,neurons", "--ratio", 0.5, "--scope", "local")
    assert [(row["kind"], row["kept"]) for row in told["groups"][:-1]] == [("heads", 2), ("neurons", 5)]


def test_what_only_exists_as_a_program_is_not_written(nets: Path, command) -> None:
    net = ("att.safetensors", "--factory", "nets5:attention", "--input", "2x5x6")
    result = command("prune", *net, "--structure", "heads", "--ratio", 0.5, "--out", "out")
    assert result.exit_code == 2 and "exported program only" in result.stderr and not (nets / "out").exists()


def test_advise_measures(nets: Path, as_json, command) -> None:
    told = as_json("advise", *NET, "--ratio", 0.5)
    assert told["seconds"] > 0 and [point["ratio"] for point in told["points"]] == [0.5]
    assert {layer["operator"] for layer in told["layers"]} >= {"conv2d", "linear", "relu"}
    assert isinstance(told["faster"], bool) and len(told["lines"]) >= 3
    shown = command("advise", *NET, "--ratio", 0.5)
    assert shown.exit_code == 0 and "50% of every group removed" in shown.stdout


@pytest.mark.parametrize(("arguments", "says"), [
    (["--method", "channels"], "how much?"),
    (["--method", "magnitude", "--flops", "0.5"], "flops=0.5 is for whole structures"),
    (["--method", "channels", "--flops", "0.5", "--sparsity", "0.3"], "say the same thing twice"),
    (["--method", "channels", "--bytes", "ten"], "bytes='ten'"),
    (["--method", "channels", "--flops", "0.0001"], "out of reach"),
    (["--method", "channels", "--flops", "0.5", "--perplexity", "a.txt"], "--perplexity goes with methods that walk"),
    (["--method", "channels", "--flops", "0.5", "--memory", "2GB", "--format", "huggingface"], "make tensors smaller, at once"),
])  # fmt: skip
def test_bad_input_is_told_and_nothing_written(nets: Path, command, arguments, says) -> None:
    result = command("prune", *NET, *arguments, "--out", "out")
    assert result.exit_code == 2 and says in result.stderr and not (nets / "out").exists()


def test_inputs_by_shape_and_name() -> None:
    (image,) = example_of(Residual(), ["2x3x8x8"])
    assert image.shape == (2, 3, 8, 8) and torch.equal(image, example_of(Residual(), ["2x3x8x8"])[0])
    words = example_of(Tagger(), ["ids=2x40:int64"])
    assert words["ids"].dtype == torch.int64 and int(words["ids"].min()) >= 0 and int(words["ids"].max()) < 9


@pytest.mark.parametrize(("given", "says"), [
    (["2x3y4"], "--input '2x3y4': write a shape"), (["3:int7"], "dtypes: float32"), (["a=1x2", "3x4"], "name all of them"),
    ([], "what does this Residual take"),
])  # fmt: skip
def test_bad_inputs_are_quoted(given, says) -> None:
    with pytest.raises(BadInput, match=says):
        example_of(Residual(), given)


def test_verify_compares_a_folder_with_the_model_before(nets: Path, as_json, command) -> None:
    as_json("prune", *NET, "--method", "channels", "--flops", 0.5, "--out", "half")
    assert "ok: planned parameters" in command("verify", "half").stdout  # from the manifest: no factory is needed to count
    given = ("verify", "half", "--factory", "nets5:residual", "--input", "2x3x8x8", "--dense")
    told = as_json(*given, "res.safetensors")
    assert told["ok"] and sum("outputs equal" in check["name"] for check in told["checks"]) == 4
    other = Residual()
    with torch.no_grad():
        other.stem.weight.add_(1)
    save_file(other.state_dict(), nets / "other.safetensors")
    assert command(*given, "other.safetensors").exit_code == 3


def test_layers_from_the_shell(nets: Path, as_json) -> None:
    (nets / "stack5.py").write_text("from tests.planning.stacks import Stack\n")
    save_file(Stack().state_dict(), nets / "stack.safetensors")
    net = ("stack.safetensors", "--factory", "stack5:Stack", "--input", "5x3")
    told = as_json("prune", *net, "--structure", "layers", "--ratio", 0.4, "--out", "short")
    assert told["verified"]["ok"] and [row["kept"] for row in told["groups"]] == [3, 3]
    assert len(sc.load("short", Stack).steps) == 3
    proof = as_json("verify", "short", "--factory", "stack5:Stack", "--input", "5x3", "--dense", "stack.safetensors")
    assert proof["ok"]
