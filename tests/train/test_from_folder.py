"""Families whose folders name or share tensors in their own ways, pruned in their files and in memory."""

import json
import subprocess
import sys

import pytest
import torch

import secateurs as sc
from secateurs.errors import BadInput, NotFinite
from secateurs.measure.process import anonymous_bytes
from secateurs.train import prune_folder
from secateurs.train.one_by_one import stops_of
from tests.models.families import batches, family
from tests.train.large import write_llama, write_text

pytest.importorskip("transformers")
PLENTY = 64 * 10**9


@pytest.mark.parametrize("name", ["gpt2", "opt", "t5", "bert", "mixtral", "qwen3-moe", "gpt-oss", "vit"])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "random"])
def test_the_bits_of_the_model_in_memory(name, method, tmp_path):
    model, given = family(name, torch.float32), batches(name, dtype=torch.float32)
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    data = given if method == "wanda" else None
    done = prune_folder(tmp_path / "model", method, sparsity=0.5, out=tmp_path / "out", memory=PLENTY, calibration=data, seed=3)
    expected = sc.prune(model, method, sparsity=0.5, calibration=data, seed=3)
    state = expected.model.state_dict()
    again = type(model).from_pretrained(tmp_path / "out", local_files_only=True).state_dict()
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)
    assert done.plan.entries == expected.plan.entries and not done.plan.diff(expected.plan)
    assert done.report == expected.report and done.recipe == expected.recipe
    assert not list(tmp_path.glob("*.partial"))


def test_a_killed_run_with_tied_weights_goes_on(tmp_path):
    model = family("gpt2", torch.float32)
    model.save_pretrained(tmp_path / "model")
    words = {"sparsity": 0.5, "memory": PLENTY, "state": tmp_path / "state"}

    def killed(done):
        if done.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_folder(tmp_path / "model", out=tmp_path / "out", progress=killed, **words)
    told = []
    prune_folder(tmp_path / "model", out=tmp_path / "out", progress=told.append, **words)
    assert [done.size > 0 for done in told] == [i >= 2 for i in range(len(told))] and len(told) > 2
    state = sc.prune(model, sparsity=0.5).model.state_dict()
    again = type(model).from_pretrained(tmp_path / "out", local_files_only=True).state_dict()
    assert all(torch.equal(again[key], state[key]) for key in state)
    assert (tmp_path / "state" / "walk.json").is_file()  # the caller's own folder stays
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] += 1
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(BadInput, match="is of another model"):
        prune_folder(tmp_path / "model", out=tmp_path / "other", **words)


def test_blocks_are_read_whole_and_other_layers_alone(tmp_path):
    model = family("llama")
    stops = stops_of(model, sc.survey(model))
    assert list(stops) == ["model.embed_tokens", "model.layers.0", "model.layers.1", "lm_head"]
    assert len(stops["model.layers.0"]) == 7


def test_not_a_number_is_named(tmp_path):
    model = family("llama", torch.float32)
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = float("inf")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(NotFinite, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        prune_folder(tmp_path / "model", sparsity=0.5, out=tmp_path / "out", memory=PLENTY)
    assert not (tmp_path / "out").exists()


def test_bad_input(tmp_path):
    family("llama").save_pretrained(tmp_path / "model")
    words = {"sparsity": 0.5, "memory": PLENTY}
    with pytest.raises(BadInput, match="exists: give another name"):
        prune_folder(tmp_path / "model", out=tmp_path / "model", **words)
    with pytest.raises(BadInput, match="is no Hugging Face folder"):
        prune_folder(tmp_path, out=tmp_path / "out", **words)
    with pytest.raises(BadInput, match="while a model trains"):
        prune_folder(tmp_path / "model", "gmp", out=tmp_path / "out", **words)
    with pytest.raises(BadInput, match="pass calibration="):
        prune_folder(tmp_path / "model", "wanda", out=tmp_path / "out", **words)
    with pytest.raises(BadInput, match="only_blocks= and compute= are for methods"):
        prune_folder(tmp_path / "model", out=tmp_path / "out", only_blocks="0:1", **words)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("name", ["llama", "t5", "qwen3-moe"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gradients_one_block_at_a_time(name, norm, tmp_path):
    model, given = family(name, torch.float32), batches(name, dtype=torch.float32)
    if name == "t5":
        given = [{"input_ids": one["input_ids"], "labels": one["decoder_input_ids"].contiguous()} for one in given]
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    words = {"sparsity": 0.5, "calibration": given, "options": {"norm": norm, "scale": 1e4}}
    told = []
    done = prune_folder(tmp_path / "model", "gblm", out=tmp_path / "out", memory=PLENTY, **words,
                        gradients=lambda *at: told.append(at[:2]))  # fmt: skip
    expected = sc.prune(model, "gblm", **words)
    assert not done.plan.diff(expected.plan) and done.report == expected.report
    assert done.plan.diff(sc.prune(model, "wanda", sparsity=0.5, calibration=given).plan)  # the gradients have a say
    blocks = 4 if name == "t5" else 2
    assert told == [(i + 1, blocks) for i in range(blocks)] and not list(tmp_path.glob("*.partial"))


def test_a_run_killed_between_gradients_and_blocks_goes_on(tmp_path):
    model, given = family("llama", torch.float32), batches("llama")
    model.save_pretrained(tmp_path / "model")
    words = {"sparsity": 0.5, "calibration": given, "memory": PLENTY, "out": tmp_path / "out", "state": tmp_path / "state"}

    def killed(done):
        raise KeyboardInterrupt

    def calls(model, batch):
        raise AssertionError("all gradients were there")

    with pytest.raises(KeyboardInterrupt):
        prune_folder(tmp_path / "model", "gblm", progress=killed, **words)
    assert (tmp_path / "state" / ".gradients" / "gradients.json").is_file()
    done = prune_folder(tmp_path / "model", "gblm", loss=calls, **words)
    assert not done.plan.diff(sc.prune(model, "gblm", sparsity=0.5, calibration=given).plan)
    assert not (tmp_path / "state" / ".gradients").exists() and (tmp_path / "state" / "walk.json").is_file()


SIZES = {"small": (20, 1024, 2816), "large": (20, 2048, 8192)}  # layers, width, width of the MLP: 0.3 and 1.5 billion weights


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of models that were made, by size; each is made once."""
    made = {}

    def make(size):
        if size not in made:
            made[size] = tmp_path_factory.mktemp(size)
            layers, hidden, inner = SIZES[size]
            write_llama(made[size] / "model", vocab_size=32000, hidden_size=hidden, intermediate_size=inner,
                        num_hidden_layers=layers, num_attention_heads=16, max_position_embeddings=512)  # fmt: skip
            write_text(made[size] / "text.txt", 2000)
        return made[size]

    return make


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(anonymous_bytes() is None, reason="the system does not tell what a process holds")
@pytest.mark.parametrize(
    ("size", "method", "budget"),
    [("small", "wanda", "1GB"), ("large", "wanda", "1.5GB"), ("large", "sparsegpt", "2.5GB"), ("large", "gblm", "1.5GB")],
)
def test_a_model_larger_than_the_budget(size, method, budget, folders, tmp_path):
    """In a process of its own, whose memory is what is measured; perplexity before and after is part of the run."""
    folder = folders(size)
    few = ["--only-blocks", "0:3"] if method != "wanda" else []  # one block needs what another does
    words = ["prune", "model", "--method", method, "--sparsity", "0.5", "--calibration", "text.txt", "--samples", "4",
             "--length", "128", "--memory", budget, "--out", str(tmp_path / "out"), "--json", *few]  # fmt: skip
    ran = subprocess.run([sys.executable, "-m", "secateurs.cli", *words], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    stored = sum(file.stat().st_size for file in (folder / "model").glob("*.safetensors"))
    assert told["verified"]["ok"] and told["memory"]["kept"]
    assert told["sizes"]["after"]["stored_bytes"] == pytest.approx(stored, rel=0.01)
    assert min(told["perplexity"][when] for when in ("before", "after")) > 1
    assert size == "small" or told["memory"]["peak_bytes"] < stored - 4 * 10**8
