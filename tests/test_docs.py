"""The Python of the documents runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language, without the indentation of a list they stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    return [textwrap.dedent(code) for _, code in found]


def execute(page: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run all Python blocks of a page as one script that finds ``names`` defined; line numbers count within a block."""
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page}, block {number}", "exec"), names)
    return names


def make_model() -> nn.Module:
    parts = {"encoder": nn.Linear(8, 8), "act": nn.ReLU(), "classifier": nn.Linear(8, 4)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"model": model, "optimizer": optimizer, "train": train, "steps": 400, "make_model": make_model}
    names = execute("README.md", {**given, "inputs": torch.ones(2, 8)})
    zeros = [int((names["model"].get_parameter(n) == 0).sum()) for n in ("encoder.weight", "classifier.weight")]
    assert zeros == [58, 29]  # 90 % of 64 and of 32
    assert (tmp_path / "pruned" / "recipe.json").is_file()


def test_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = execute("docs/guide.md", {})
    assert names["pruner"].step_count == 60
    assert names["check"].ok


def test_language_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("transformers")
    from tests.models.families import family

    ids = torch.randint(3, 48, (8, 6))
    model = family("llama", torch.float32)
    model.save_pretrained("model")
    names = execute("docs/language.md", {"model": model, "ids": ids})
    assert names["pruned"].plan.sparsity == 0.5 and "error" in names["pruned"].report[0]
    shares = {entry.name.split(".")[-2]: entry.sparsity for entry in names["by_hand"].plan.entries}
    assert shares["up_proj"] == 0.5 and shares["down_proj"] == pytest.approx(0.3, abs=0.03)


def test_structures_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.planning.nets import IMAGES, Residual

    config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=4,
                         num_key_value_heads=2)  # fmt: skip
    ids = {"input_ids": torch.randint(3, 40, (2, 6)), "use_cache": False}
    given = {"model": Residual().eval(), "inputs": IMAGES, "make_model": lambda: Residual().eval(), "ids": ids}
    names = execute("docs/structures.md", {**given, "decoder": LlamaForCausalLM(config).eval()})
    assert names["plan"].after.multiply_adds <= names["plan"].before.multiply_adds // 2
    assert {entry.kind for entry in names["smaller"].plan.entries} == {"heads", "kv-heads", "neurons"}
    assert [entry.kind for entry in names["narrow"].plan.entries] == ["width"]
    assert names["by_name"].plan.keeps["model.layers"].tolist() == [0, 3]
    assert names["by_magnitude"].plan.entries[0].kept == 3
    assert type(names["loaded"]) is Residual and torch.equal(names["loaded"](IMAGES), names["done"].model(IMAGES))


@pytest.mark.parametrize("page", ["woodfisher", "m-fac"])
def test_fisher_pages(page: str) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = [(torch.randn(128, 8), torch.randint(4, (128,)))]
    given = {"model": model, "optimizer": optimizer, "batches": batches, "train": train}
    names = execute(f"docs/methods/{page}.md", given)
    assert names["pruned"].plan.removed == 77 and names["pruner"].plan().removed == 86  # 80 and 90 % of 96
    assert sum(int((p == 0).sum()) for p in names["model"].parameters() if p.dim() > 1) == 86


def test_bip_page() -> None:
    model = make_model()
    given = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.01), "train": train,
             "batches": [(torch.randn(16, 8), torch.randint(4, (16,)))]}  # fmt: skip
    names = execute("docs/methods/bip.md", given)
    assert sum(int((p == 0).sum()) for p in names["model"].parameters() if p.dim() > 1) == 86  # 90 % of 96
    assert names["pruner"].step_count == 1000


@pytest.mark.parametrize("page", ["lottery", "lottery-rewind", "sap", "ap"])
def test_pages_of_methods_in_rounds(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, steps = make_model(), 120

    def to_the_end(model: nn.Module, optimizer: torch.optim.Optimizer, first: int) -> None:
        train(model, optimizer, steps - first)

    given = {"model": model, "train": to_the_end, "n": steps, "optimizer": torch.optim.SGD(model.parameters(), 0.01),
             "new_optimizer": lambda model: torch.optim.SGD(model.parameters(), 0.01), "validation_loss": lambda model: 1.0,
             "batches": [torch.randn(4, 8)], "dense": make_model(), "alone": make_model(), "another_order": make_model(),
             "masks": {"encoder.weight": torch.ones(8, 8) > 0}, "error": lambda model: 0.0}  # fmt: skip
    names = execute(f"docs/methods/{page}.md", given)
    if page == "sap":  # its neurons of eight weights soon have none to lose
        assert names["rounds"].report()[0]["pq_index"] > 0
    else:  # 58 of 64 and 29 of 32; 80 and 90 % of all 96
        assert names["rounds"].plan().removed == {"lottery": 87, "lottery-rewind": 77, "ap": 86}[page]
        assert len(names["rounds"].report()) == (9 if page == "lottery-rewind" else 11)


def test_commands_of_the_structures_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, on a small network and a small Llama in the place of the ones that are named."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("onnxruntime")
    typer = pytest.importorskip("typer.testing")
    from safetensors.torch import save_file

    from secateurs.cli.app import app
    from tests.planning.nets import Residual

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nets.py").write_text("from tests.planning.nets import Residual as make_model\n", encoding="utf-8")
    save_file(Residual().state_dict(), tmp_path / "net.safetensors")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=40, num_key_value_heads=2, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained("llama")
    given = commands("docs/structures.md")
    assert len(given) == 12
    for words in given:
        done = typer.CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{' '.join(words)}: {done.output}"
    assert {"half", "smaller", "planned", "model.onnx", "small.onnx", "quarter.onnx"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_callbacks_of_the_guide_are_there() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("lightning")
    lines = "\n".join(blocks("docs/guide.md", "py")).splitlines()
    imports = [line for line in lines if line.startswith("from secateurs")]
    assert len(imports) == 2
    for line in imports:
        exec(line, {})


def test_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pydantic")
    pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    model = nn.Module()
    model.stem, model.block, model.classifier = nn.Conv2d(3, 4, 3), nn.Module(), nn.Linear(8, 4)  # type: ignore[assignment]
    model.block.attention, model.block.mlp = nn.Module(), nn.Linear(8, 8)  # type: ignore[assignment]
    model.block.attention.q = nn.Linear(8, 8)  # type: ignore[assignment]
    (tmp_path / "recipe.yaml").write_text(blocks("docs/recipes.md", "yaml")[0], encoding="utf-8")
    names = execute("docs/recipes.md", {"model": model})
    assert [w.name for w in names["pruner"].weights] == ["block.mlp.weight", "classifier.weight"]


def commands(page: str) -> list[list[str]]:
    """The ``secateurs`` lines of a page's shell blocks, as words."""
    lines = "\n".join(blocks(page, "sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("secateurs ")]


@pytest.mark.parametrize("page", ["README.md", "docs/command.md", "docs/language.md", "docs/structures.md"])
def test_commands_and_flags_exist(page: str) -> None:
    typer = pytest.importorskip("typer")
    from secateurs.cli.app import app

    known = typer.main.get_command(app).commands
    assert len(commands(page)) >= 4
    for _, name, *words in commands(page):
        flags = {flag for parameter in known[name].params for flag in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= flags, f"{page}: secateurs {name} {' '.join(words)}"


def test_command_examples_run(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    from safetensors.torch import save_file

    (code,) = blocks("docs/command.md", "python")
    (tmp_path / "nets.py").write_text(code, encoding="utf-8")
    names: dict[str, Any] = {}
    exec(code, names)
    save_file(names["make_model"]().state_dict(), tmp_path / "net.safetensors")
    examples = [words[1:] for words in commands("docs/command.md") if "nets:make_model" in words]
    assert len(examples) == 5
    script = "import sys; from secateurs.cli.app import app\nfor words in eval(sys.argv[1]): app(words, standalone_mode=False)"
    command, env = [sys.executable, "-c", script, repr(examples)], {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"pruned", "global", "half"} <= {path.name for path in tmp_path.iterdir()}


def test_recipe_page_lists_every_key() -> None:
    import dataclasses

    table = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").partition("## Keys")[2].partition("## Errors")[0]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert listed == {field.name for field in dataclasses.fields(sc.Recipe)}


def test_recipe_page_quotes_a_real_error(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    pytest.importorskip("yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text("sparsty: 0.9\n", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        sc.Recipe.from_yaml(path)
    assert str(caught.value).replace(str(path), "recipe.yaml") == blocks("docs/recipes.md", "text")[0].strip()
