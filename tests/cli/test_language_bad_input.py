"""What a language model, its text or its disk can have wrong: a line that says what, and nothing half done."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

import secateurs as sc
from secateurs import files
from tests.cli.killing import same, tensors, write_model

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

DATA = ("--calibration", "text.txt", "--samples", 4, "--length", 16)
HALF = ("--method", "wanda", "--sparsity", 0.5, *DATA)
in_memory_and_in_files = pytest.mark.parametrize("memory", [(), ("--memory", "64GB")], ids=["in memory", "in files"])


@pytest.fixture
def folder(here: Path) -> Path:
    """``model``, in five files of which ``model-00002.safetensors`` is the second block's, and ``text.txt``."""
    write_model(here, num_hidden_layers=3, hidden_size=16, intermediate_size=24)
    return here


def refused(command, *words: object, says: tuple[str, ...]) -> str:
    """The command ends as bad input, says so in words, and leaves nothing."""
    result = command("prune", *words, "--out", "out")
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in says), result.stderr
    assert not Path("out").exists() and not list(Path().glob(".out*"))
    return str(result.stderr)


@in_memory_and_in_files
@pytest.mark.parametrize(
    ("text", "says"),
    [("", "'bad.txt' holds no text"), (" \n\n ", "'bad.txt' holds no text"), ("w1 w2", "fewer than one window of length=16")],
    ids=["empty", "blank", "short"],
)
def test_too_little_text(folder: Path, command, text: str, says: str, memory) -> None:
    Path("bad.txt").write_text(text)
    refused(command, "model", *HALF, "--calibration", "bad.txt", *memory, says=(says,))


@in_memory_and_in_files
def test_a_tokenizer_of_another_model(folder: Path, command, memory) -> None:
    told = json.loads(Path("model/tokenizer.json").read_text())
    told["model"]["vocab"]["w5"] = 999
    Path("model/tokenizer.json").write_text(json.dumps(told))
    refused(command, "model", *HALF, *memory, says=("the id 999", "256 ids, 0 to 255: it is the tokenizer of another model"))


@in_memory_and_in_files
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_not_a_number_in_one_file_is_named_with_it(folder: Path, command, method: str, memory) -> None:
    file, name = Path("model/model-00002.safetensors"), "model.layers.1.mlp.up_proj.weight"
    stored = safetensors.torch.load_file(file)
    stored[name][3, 3] = float("nan")
    safetensors.torch.save_file(stored, file, metadata={"format": "pt"})
    words = ("--method", method, "--sparsity", 0.5, *DATA)
    if method == "magnitude" and not memory:
        words = words[:4]
    refused(command, "model", *words, *memory, says=(f"{name!r}", f"{str(file)!r}"))


@in_memory_and_in_files
def test_a_file_that_is_missing_or_not_whole_is_named(folder: Path, command, memory) -> None:
    file = Path("model/model-00002.safetensors")
    whole = file.read_bytes()
    for half in (whole[:-10], whole[:5], b""):
        file.write_bytes(half)
        refused(command, "model", *HALF, *memory, says=(f"{str(file)!r} is not a whole safetensors file",))
    file.unlink()
    refused(command, "model", *HALF, *memory, says=("'model' lacks the shard 'model-00002.safetensors'",))


@in_memory_and_in_files
def test_blocks_that_are_not_there_come_with_the_tree(folder: Path, command, memory) -> None:
    stderr = refused(command, "model", *HALF, "--blocks", "model.blocks", *memory,
                     says=("blocks='model.blocks' is no module of this model", "as in blocks='model.layers'"))  # fmt: skip
    assert "\nmodel: LlamaModel\n  embed_tokens: Embedding\n  layers: 3 x LlamaDecoderLayer\n" in stderr


@in_memory_and_in_files
def test_a_place_that_is_taken(folder: Path, command, memory) -> None:
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("years of work")
    result = command("prune", "model", *HALF, *memory, "--out", "out")
    assert result.exit_code == 2 and "'out' exists: give another name, or add --overwrite" in result.stderr
    result = command("prune", "model", *HALF, *memory, "--overwrite", "--out", "out")
    assert result.exit_code == 2 and "is not just a saved model" in result.stderr
    assert [path.name for path in Path("out").iterdir()] == ["thesis.txt"]


@in_memory_and_in_files
@pytest.mark.parametrize("moment", [1, 3, 5])
def test_a_disk_that_is_full_half_way(folder: Path, command, as_json, monkeypatch, moment: int, memory) -> None:
    """Nothing is at OUT, what is finished stays, and with room again the same command goes on from it."""
    words, calls = ("prune", "model", *HALF, *memory, "--format", "huggingface", "--out"), iter(range(100))
    as_json(*words, "whole")
    real = files.os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) >= moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        result = command(*words, "out")
    assert result.exit_code == 2 and "no room left on the disk" in result.stderr, result.output
    assert "what is finished stays in" in result.stderr and "out.partial" in result.stderr
    assert not Path("out").exists() and not list(Path().glob(".out*"))
    assert json.loads(Path("out.partial/walk.json").read_text())["format"] == "secateurs-walk"
    assert not list(Path("out.partial").glob(".*.safetensors.*"))
    as_json(*words, "out")
    assert same(Path("out"), Path("whole")) and not Path("out.partial").exists()


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_groups_that_do_not_divide_a_layer(folder: Path, command, as_json, method: str) -> None:
    """24 columns are no multiple of 16: refused by name, and done where that layer is left out."""
    words = ("model", "--method", method, "--structure", "4:16", *(DATA if method != "magnitude" else ()))
    refused(command, *words, says=("'4:16' does not fit", "down_proj.weight", "24"))
    told = as_json("prune", *words, "--exclude", "*down_proj*", "--out", "out")
    assert any("down_proj" in left["name"] for left in told["left"]) and told["verified"]["ok"]


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_a_model_that_is_sparser_already_keeps_every_bit(folder: Path, as_json, method: str) -> None:
    data = DATA if method != "magnitude" else ()
    words = ("--method", method, *data, "--format", "huggingface")
    chosen = ("--include", "*layers*") if method == "magnitude" else ()
    first = as_json("prune", "model", *words, *chosen, "--sparsity", 0.7, "--out", "sparse")
    as_json("prune", "sparse", *words, *chosen, "--sparsity", 0.5, "--out", "again")
    before, after = tensors(Path("sparse")), tensors(Path("again"))
    weights = [name for name in after if not name.startswith("plan.")]
    assert all(torch.equal(after[name], before[name]) for name in weights) and len(weights) > 20
    assert first["report"][-1]["sparsity"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_an_input_that_is_never_active_goes_first_and_costs_nothing(method: str) -> None:
    """One of eight columns is dead: at an eighth it alone goes, and not a bit of the output changes."""
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 6)), torch.randn(40, 8)
    x[:, 3] = 0
    with torch.no_grad():
        model[0].weight[:, 3] = 100.0
    pruned = sc.prune(model, method, sparsity=0.125, calibration=[x])
    assert (~pruned.plan.masks["0.weight"]).nonzero()[:, 1].tolist() == [3] * 6
    assert torch.equal(pruned.model(x), model(x))
    half = sc.prune(model, method, sparsity=0.5, calibration=[x])
    assert not half.model[0].weight[:, 3].any() and torch.isfinite(half.model[0].weight).all()


def test_activations_that_are_no_numbers_are_named(folder: Path, command) -> None:
    """Weights are finite, and their products overflow in the second block."""
    file = Path("model/model-00001.safetensors")
    stored = safetensors.torch.load_file(file)
    for name in stored:
        if "layernorm" not in name:
            stored[name].fill_(1e30)
    safetensors.torch.save_file(stored, file, metadata={"format": "pt"})
    refused(command, "model", *HALF, says=("the inputs of 'model.layers.0.", "are not finite"))
    shutil.rmtree("out.partial", ignore_errors=True)
