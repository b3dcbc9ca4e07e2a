"""The page beside a pruned model, and what else the folder is good for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import secateurs as sc
from tests.cli.speakers import WORDS, save_model, save_tokenizer


@pytest.fixture
def speaker(here: Path) -> Path:
    pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    (here / "text.txt").write_text(" ".join(WORDS * 4))
    path = save_model("llama", here / "llama")
    save_tokenizer(path)
    return path


TEXT = ("--calibration", "text.txt", "--samples", 6, "--length", 16)


@pytest.mark.parametrize("format", ["secateurs", "huggingface"])
def test_a_pruned_folder_with_its_page(speaker: Path, as_json, format: str) -> None:
    """It loads, verifies, can be written over, and gives plain transformers the logits of the model that was pruned."""
    pytest.importorskip("jinja2")
    transformers = pytest.importorskip("transformers")
    words = ("prune", "llama", "--method", "sparsegpt", "--sparsity", 0.5, *TEXT, "--format", format, "--out", "pruned")
    told = as_json(*words)
    assert told["page"] == "pruned/report.html"
    page = Path("pruned/report.html").read_text()
    command = "secateurs prune llama --method sparsegpt --sparsity 0.5 --calibration text.txt --samples 6 --length 16"
    for text in ("LlamaForCausalLM, pruned by sparsegpt", "50.00 %", f"{command} --format {format}", "6 windows of 16 tokens",
                 "model.layers.1.mlp.down_proj.weight", "<circle", f"{told['perplexity']['after']:.4f}"):  # fmt: skip
        assert text in page, text
    assert as_json("verify", "pruned")["ok"]
    batches = torch.arange(48).view(3, 16)
    model = sc.load("pruned") if format == "secateurs" else transformers.LlamaForCausalLM.from_pretrained("pruned")
    as_json("export", "pruned", "--out", "plain")
    plain = transformers.AutoModelForCausalLM.from_pretrained("plain", dtype="auto")
    with torch.no_grad():
        assert torch.equal(plain(input_ids=batches).logits, model.eval()(input_ids=batches).logits)
    assert sum(int((p == 0).sum()) for p in plain.parameters()) >= told["report"][-1]["removed"] > 0
    assert as_json(*words, "--overwrite")["verified"]["ok"]


def test_without_data_and_without_text(here: Path, command) -> None:
    pytest.importorskip("jinja2")
    result = command("prune", "net.safetensors", "--factory", "toy:build", "--sparsity", 0.5, "--out", "pruned")
    assert result.exit_code == 0, result.output
    assert any(line.split() == ["page", "pruned/report.html"] for line in result.stdout.splitlines())
    page = Path("pruned/report.html").read_text()
    assert "Sequential, pruned by magnitude" in page and "0.weight" in page and "perplexity" not in page
    sys.path.insert(0, str(here))
    assert sc.load("pruned", __import__("toy").build)


def test_without_the_extra_the_line_says_so(here: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = command("prune", "net.safetensors", "--factory", "toy:build", "--sparsity", 0.5, "--out", "pruned")
    assert result.exit_code == 0, result.output
    assert "none: this needs 'jinja2', which is not installed: pip install 'secateurs[plots]'" in result.stdout
    assert not Path("pruned/report.html").exists() and Path("pruned/weights.safetensors").exists()
