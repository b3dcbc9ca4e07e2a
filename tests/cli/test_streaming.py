"""secateurs prune --memory: the folder is pruned in its files, to the bits that pruning in memory gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import secateurs as sc
from secateurs.cli import streaming
from secateurs.measure import process
from secateurs.measure.process import PeakAnonymous, anonymous_bytes
from secateurs.train import budget, from_folder, perplexity
from tests.cli.test_calibration import TEXT, WORDS, Killed, speaker  # noqa: F401  (a fixture)

transformers = pytest.importorskip("transformers")
linux = pytest.mark.skipif(anonymous_bytes() is None, reason="the system does not tell what a process holds")


@pytest.fixture
def sharded(speaker: Path) -> Path:  # noqa: F811
    """The tiny Llama in several shards."""
    model = transformers.LlamaForCausalLM.from_pretrained(speaker, dtype=torch.bfloat16)
    (speaker / "model.safetensors").unlink()
    model.save_pretrained(speaker, max_shard_size="4KB")
    assert len(list(speaker.glob("*.safetensors"))) >= 3
    return speaker


def tensors(folder: str | Path) -> dict[str, torch.Tensor]:
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype="auto").state_dict()


@linux
@pytest.mark.parametrize(
    "flags",
    [
        ["--method", "magnitude", "--sparsity", 0.5],
        ["--method", "magnitude", "--structure", "2:4", "--exclude", "lm_head"],
        ["--method", "magnitude", "--total-sparsity", 0.3, "--allocation", "uniform"],
        ["--method", "wanda", "--sparsity", 0.5],
        ["--method", "wanda", "--structure", "2:4", "--dense-inputs"],
        ["--method", "sparsegpt", "--sparsity", 0.6],
        ["--method", "gblm", "--sparsity", 0.5],
        ["--method", "gblm", "--structure", "2:4", "--option", "norm=l2", "--only-blocks", "1:2"],
        ["--method", "sparsegpt", "--sparsity", 0.5, "--quantize", "int8", "--only-blocks", "1:2"],
    ],
    ids=str,
)
def test_the_bits_of_the_run_in_memory(sharded: Path, as_json, flags: list) -> None:
    told = as_json("prune", sharded, *flags, *TEXT, "--memory", "64GB", "--out", "streamed")
    whole = as_json("prune", sharded, *flags, *TEXT, "--format", "huggingface", "--out", "whole")
    mine, theirs = tensors("streamed"), tensors("whole")
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert all(mine[name].dtype == theirs[name].dtype == torch.bfloat16 for name in theirs)
    assert told["report"][:-1] == whole["report"][:-1] and told["recipe"] == whole["recipe"]
    assert told["perplexity"].keys() == whole["perplexity"].keys()
    for when in ("before", "after"):
        assert told["perplexity"][when] == pytest.approx(whole["perplexity"][when], rel=1e-5)
    assert {left["name"]: left["reason"] for left in told["left"]} == {left["name"]: left["reason"] for left in whole["left"]}
    assert told["verified"]["ok"] and told["memory"]["kept"] and 0 < told["memory"]["peak_bytes"] < 64e9
    beside = {"plan.json", "plan.safetensors", "recipe.yaml", "recipe.json", "report.json", "tokenizer.json",
              "tokenizer_config.json", "config.json", "generation_config.json", "model.safetensors.index.json"}  # fmt: skip
    assert beside <= {path.name for path in Path("streamed").iterdir()}
    ours, other = sc.Plan.load("streamed"), sc.Plan.load("whole")
    assert ours.entries == other.entries and not ours.diff(other)
    assert not Path("streamed.partial").exists()
    assert as_json("verify", "streamed")["ok"]
    assert transformers.AutoTokenizer.from_pretrained("streamed").convert_tokens_to_ids(WORDS[0]) == 3


@linux
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_killed_and_given_again(sharded: Path, as_json, command, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    words = ("prune", sharded, "--method", method, "--sparsity", 0.5, *TEXT, "--memory", "64GB", "--out")
    as_json(*words, "whole")

    def killed(done):
        if done.number == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(streaming, "teller", lambda at: killed)
        with pytest.raises(Killed):
            from secateurs.cli.app import app

            app([str(word) for word in (*words, "pruned")], standalone_mode=False)
    assert Path("pruned.partial/walk.json").is_file() and not Path("pruned").exists()
    first = Path("pruned.partial/block-00000.safetensors").stat().st_mtime_ns
    other = command("prune", sharded, "--method", method, "--sparsity", 0.6, *TEXT, "--memory", "64GB", "--out", "pruned")
    assert other.exit_code == 2 and "of another run" in other.stderr
    assert Path("pruned.partial/block-00000.safetensors").stat().st_mtime_ns == first
    as_json(*words, "pruned")
    mine, theirs = tensors("pruned"), tensors("whole")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert not sc.Plan.load("pruned").diff(sc.Plan.load("whole"))


class Growing(PeakAnonymous):
    """A process that outgrows the budget after the first look."""

    def __exit__(self, *error):
        super().__exit__(*error)
        self.peak = 65 * 10**9


def test_more_than_promised_is_said(sharded: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_folder, "PeakAnonymous", Growing)
    result = command("prune", sharded, "--method", "magnitude", "--sparsity", 0.5, "--memory", "64GB", "--out", "pruned")
    assert result.exit_code == 3
    assert "at most 65 GB" in result.stdout and "64 GB were allowed: EXCEEDED" in result.stdout
    assert Path("pruned/config.json").is_file()


def test_what_cannot_be_measured_is_said(sharded: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (budget, process):
        monkeypatch.setattr(module, "anonymous_bytes", lambda: None)
    result = command("prune", sharded, "--method", "magnitude", "--sparsity", 0.5, "--memory", "64GB", "--out", "pruned")
    assert result.exit_code == 0 and "not measured: this system does not tell" in result.stdout


@pytest.mark.parametrize(
    ("flags", "quotes"),
    [
        (["--criterion", "gradient-magnitude"], "needs the gradient-magnitude of the whole dense model"),
        (["--method", "wanda", "--allocation", "owl", *TEXT], "allocation='owl' compares scores of the whole dense model"),
        (["--method", "wanda", "--allocation", "ecoflap", *TEXT], "statistics of the whole dense model"),
        (["--allocation", "global"], "allocation='global' compares scores of the whole dense model"),
        (["--format", "secateurs"], "--memory writes a Hugging Face folder"),
        (["--perplexity", "absent.txt"], "'absent.txt' does not exist"),
        (["--memory", "2"], "memory '2': give a number and a unit"),
        (["--memory", "2 apples"], "memory '2 apples': give a number and a unit"),
        (["--method", "wanda"], "add --calibration FILE"),
        (["--method", "wanda", "--calibration", "absent.txt"], "'absent.txt' does not exist"),
    ],
    ids=str,
)
def test_what_it_cannot_do(sharded: Path, command, flags: list[str], quotes: str) -> None:
    result = command("prune", sharded, "--sparsity", 0.5, "--memory", "64GB", *flags, "--out", "pruned")
    assert result.exit_code == 2, result.output
    assert quotes in result.stderr
    assert not Path("pruned").exists() and not Path("pruned.partial").exists()


@linux
def test_a_budget_below_what_is_there(sharded: Path, command, here: Path) -> None:
    result = command("prune", sharded, "--sparsity", 0.5, "--memory", "1MB", "--out", "pruned")
    assert result.exit_code == 2 and "memory=1000000 bytes cannot be kept" in result.stderr
    result = command("prune", "net.safetensors", "--sparsity", 0.5, "--memory", "64GB", "--out", "pruned")
    assert result.exit_code == 2 and "needs a Hugging Face folder" in result.stderr


def test_the_report_is_json(sharded: Path, as_json) -> None:
    told = as_json("prune", sharded, "--sparsity", 0.5, "--memory", "64GB", "--out", "pruned")
    assert json.loads(Path("pruned/report.json").read_text()) == told["report"]


def test_from_python(sharded: Path) -> None:
    batches = [torch.arange(16)[None] % 40, torch.arange(3, 19)[None]]
    done = sc.train.prune_folder(sharded, "wanda", sparsity=0.5, out="pruned", memory=64 * 10**9, calibration=batches)
    model = transformers.LlamaForCausalLM.from_pretrained(sharded, dtype="auto")
    expected = sc.prune(model, "wanda", sparsity=0.5, calibration=batches).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in tensors("pruned").items())
    assert done.memory.budget == 64 * 10**9 and done.plan.removed == 1920 and done.report[-1]["removed"] == 1920


@linux
def test_perplexity_with_a_budget(sharded: Path, as_json, command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("evaluate", sharded, "--perplexity", "other.txt", "--length", 16)
    whole, told = as_json(*words), as_json(*words, "--memory", "64GB")
    assert told["perplexity"] == pytest.approx(whole["perplexity"], rel=1e-5)
    assert told["memory"]["kept"] and "memory" not in whole
    assert {key: told[key] for key in whole if key != "perplexity"} == {k: v for k, v in whole.items() if k != "perplexity"}
    result = command(*words, "--memory", "1MB")
    assert result.exit_code == 2 and "memory=1000000 bytes cannot be kept" in result.stderr
    result = command("evaluate", "net.safetensors", "--perplexity", "other.txt", "--memory", "64GB")
    assert result.exit_code == 2 and "needs a Hugging Face folder" in result.stderr
    monkeypatch.setattr(perplexity, "PeakAnonymous", Growing)
    result = command(*words, "--memory", "64GB")
    assert result.exit_code == 3 and "64 GB were allowed: EXCEEDED" in result.stdout


def test_perplexity_on_a_text_of_its_own(sharded: Path, as_json) -> None:
    words = ("prune", sharded, "--sparsity", 0.5, "--perplexity", "other.txt", "--length", 16, "--windows", 3)
    told = as_json(*words, "--memory", "64GB", "--out", "pruned")["perplexity"]
    assert told["text"] == "other.txt" and told["windows"] == 3
    for when, folder in (("before", sharded), ("after", Path("pruned"))):
        again = as_json("evaluate", folder, "--perplexity", "other.txt", "--length", 16, "--windows", 3)
        assert told[when] == pytest.approx(again["perplexity"], rel=1e-5)
    assert json.loads(Path("pruned/report.json").read_text())[-1]["perplexity"] == told
