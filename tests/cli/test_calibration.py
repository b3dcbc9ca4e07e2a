"""secateurs prune with text, and secateurs evaluate."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

import secateurs as sc
from secateurs.cli import calibrating

WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture
def speaker(here: Path) -> Path:
    """A tiny Llama with a tokenizer of forty words, and texts to read."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=48, num_key_value_heads=1, max_position_embeddings=32, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(here / "llama")
    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2} | {word: i + 3 for i, word in enumerate(WORDS)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(here / "llama")
    choose = random.Random(0)
    rows = [" ".join(choose.choices(WORDS, k=20)) for _ in range(30)]
    (here / "text.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows))
    (here / "other.txt").write_text(" ".join(choose.choices(WORDS, k=100)))
    return here / "llama"


TEXT = ("--calibration", "text.jsonl", "--samples", 6, "--length", 16)


@pytest.mark.parametrize(
    "flags",
    [
        ["--method", "wanda", "--sparsity", 0.5],
        ["--method", "sparsegpt", "--structure", "2:4", "--format", "huggingface"],
        ["--method", "sparsegpt", "--sparsity", 0.5, "--quantize", "int4", "--option", "dampening=0.1"],
        ["--method", "gblm", "--sparsity", 0.5, "--dense-inputs"],
        ["--method", "wanda", "--sparsity", 0.5, "--allocation", "owl", "--blocks", "model.layers"],
    ],
    ids=str,
)
def test_a_language_model_is_pruned_and_measured(speaker: Path, as_json, flags: list) -> None:
    told = as_json("prune", speaker, *flags, *TEXT, "--perplexity", "other.txt", "--out", "pruned")
    total = told["report"][-1]
    assert (total["size"], total["removed"]) == (3840, 1920)
    assert told["verified"]["ok"]
    assert told["perplexity"] == total["perplexity"]
    assert told["perplexity"]["windows"] == 6 and told["perplexity"]["length"] == 16  # 102 tokens
    assert 20 < told["perplexity"]["before"] < 100 and told["perplexity"]["after"] > 0
    assert "non-overlapping" in told["perplexity"]["convention"]
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= {left["name"] for left in told["left"]}
    assert not Path("pruned.partial").exists() and (Path("pruned") / "tokenizer.json").is_file()
    again = as_json("evaluate", "pruned", "--perplexity", "other.txt", "--length", 16)
    assert again["perplexity"] == pytest.approx(told["perplexity"]["after"], rel=1e-6)
    assert json.loads((Path("pruned") / "report.json").read_text())[-1]["perplexity"] == told["perplexity"]


def test_shares_from_a_file_and_a_range_of_blocks(speaker: Path, as_json, command) -> None:
    Path("shares.json").write_text('{"*": 0.5, "*.down_proj.weight": 0.25}')
    words = ("prune", speaker, "--method", "sparsegpt", "--allocation", "shares.json", "--only-blocks", "0:1", *TEXT, "--out")
    told = as_json(*words, "p")
    gone = {row["name"].split(".")[-2]: row["removed"] for row in told["report"][:-1]}
    half = {"q_proj": 128, "k_proj": 64, "v_proj": 64, "o_proj": 128, "gate_proj": 192, "up_proj": 192}
    assert gone == {**half, "down_proj": 96}
    Path("shares.json").write_text("[0.5]")
    assert "must hold an object" in command(*words, "q").stderr


def test_the_table_and_progress(speaker: Path, command) -> None:
    result = command("prune", speaker, "--method", "sparsegpt", "--sparsity", 0.5, *TEXT, "--out", "pruned")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert [line.split(",")[:2] for line in lines] == [["block 1/2", " 50.00 % removed"], ["block 2/2", " 50.00 % removed"]]
    assert all("error 0." in line and "s left" in line for line in lines)
    assert "on the calibration windows, 6 windows of 16 tokens" in result.stdout
    assert next(line for line in result.stdout.splitlines() if line.startswith("layer")).split()[-1] == "error"


class Killed(BaseException):
    pass


def test_the_same_command_goes_on(speaker: Path, as_json, command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("prune", speaker, "--method", "sparsegpt", "--sparsity", 0.5, *TEXT, "--out")
    as_json(*words, "whole")
    with monkeypatch.context() as patch:
        patch.setattr(calibrating, "teller", lambda at: lambda done: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            from secateurs.cli.app import app

            app([str(word) for word in (*words, "pruned")], standalone_mode=False)
    assert Path("pruned.partial/walk.json").is_file() and not Path("pruned").exists()
    other = command("prune", speaker, "--method", "sparsegpt", "--sparsity", 0.6, *TEXT, "--out", "pruned")
    assert other.exit_code == 2 and "'pruned.partial' is of another run" in other.stderr
    as_json(*words, "pruned")
    first, second = sc.load("whole").state_dict(), sc.load("pruned").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("flags", "quotes"),
    [
        (["--method", "wanda"], "'wanda' prunes by what calibration data shows: add --calibration FILE"),
        (["--method", "wanda", "--calibration", "absent.txt"], "'absent.txt' does not exist"),
        (["--method", "wanda", "--calibration", "other.txt", "--length", "500"], "102 tokens, fewer than one window"),
        (["--method", "wanda", "--calibration", "text.jsonl", "--text-column", "txt"], "under 'txt'; did you mean 'text'"),
        (["--method", "wanda", "--calibration", "other.txt", "--blocks", "model.layer"], "did you mean 'model.layers'"),
        (["--method", "wanda", "--quantize", "int4", "--calibration", "other.txt"], "'wanda' has no option 'quantize'"),
        (["--method", "sparsegpt", "--quantize", "int3", "--calibration", "other.txt"], "quantize='int3'"),
    ],
    ids=str,
)
def test_bad_input(speaker: Path, command, flags: list[str], quotes: str) -> None:
    result = command("prune", speaker, "--sparsity", 0.5, *flags, "--out", "pruned")
    assert result.exit_code == 2, result.output
    assert quotes in result.stderr
    assert not Path("pruned").exists()


def test_evaluate_says_how(speaker: Path, command) -> None:
    result = command("evaluate", speaker, "--perplexity", "text.jsonl", "--windows", 3)
    assert result.exit_code == 0, result.output
    assert "3 windows of 32 tokens" in result.stdout and "non-overlapping" in result.stdout
    (speaker / "tokenizer.json").unlink()
    result = command("evaluate", speaker, "--perplexity", "text.jsonl")
    assert result.exit_code == 2 and "holds no tokenizer" in result.stderr
