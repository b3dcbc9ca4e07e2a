"""A model that stays in its files while it is pruned gives what one in memory gives."""

import json

import pytest
import torch

from secateurs.errors import BadInput, CorruptFile, NotFinite
from secateurs.models import survey
from secateurs.train.walk import Shards, Streamed, assemble, open_hollow, walk
from tests.models.families import batches, family

pytest.importorskip("transformers")


def visit(block):
    for weight in block.weights:
        (norms,) = block.statistics[weight.name]["norms"]
        scores = norms.norms if weight.layout.in_dim == 1 else norms.norms[:, None]
        scores = weight.parameter.abs() * scores
        weight.parameter[scores <= scores.median()] = 0


def alive(model):
    return {name for name, p in model.named_parameters() if not p.is_meta}


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "t5", "bert"])
def test_streamed_and_in_memory_give_the_same_bits(name, tmp_path):
    model, given, most, outside = family(name, torch.float32), batches(name, dtype=torch.float32), [], set()
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    hollow = open_hollow(tmp_path / "model")
    assert not alive(hollow)
    source = Streamed(hollow, Shards(tmp_path / "model"))

    def watching(block):
        outside.update(alive(hollow))
        most.append({other for other in alive(hollow) if not other.startswith(f"{block.name}.")})
        visit(block)

    walked = walk(hollow, survey(hollow), given, ["norms"], watching, source=source, state=tmp_path / "out")
    expected = walk(model, survey(model), given, ["norms"], visit)
    assert any("embed" in name or "shared" in name or "wte" in name for name in outside)
    assert list(walked.facts) == list(expected.facts) and len(most) == len(walked.facts)
    assert not any(f"{block}." in other for others in most for other in others for block in walked.facts)
    stored, state = Shards(tmp_path / "out"), model.state_dict()
    assert {name for name in state if name.startswith(tuple(f"{block}." for block in walked.facts))} == set(stored.names)
    assert all(torch.equal(stored.get(name), state[name]) for name in stored.names)
    assemble(source, tmp_path / "out", tmp_path / "pruned", most=4000)
    again = type(model).from_pretrained(tmp_path / "pruned", local_files_only=True).state_dict()
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)
    with pytest.raises(BadInput, match="is not empty"):
        assemble(source, tmp_path / "out", tmp_path / "pruned")
    assert not alive(hollow)  # layers outside the blocks are let go as well


def test_a_streamed_walk_resumes(tmp_path):
    model, given = family("llama", torch.bfloat16), batches("llama")
    model.save_pretrained(tmp_path / "model")

    def run(visitor):
        hollow = open_hollow(tmp_path / "model")
        source = Streamed(hollow, Shards(tmp_path / "model"))
        walk(hollow, survey(hollow), given, ["norms"], visitor, source=source, state=tmp_path / "out")

    def killed(block):
        if block.index == 1:
            raise KeyboardInterrupt
        visit(block)

    with pytest.raises(KeyboardInterrupt):
        run(killed)
    assert len(Shards(tmp_path / "out").names) == 9
    run(visit)
    walk(model, survey(model), given, ["norms"], visit)
    stored, state = Shards(tmp_path / "out"), model.state_dict()
    assert len(stored.names) == 18 and stored.dtype() == torch.bfloat16
    assert all(torch.equal(stored.get(name), state[name]) for name in stored.names)


def test_bad_files(tmp_path):
    model = family("llama", torch.float32)
    folder = tmp_path / "model"
    model.save_pretrained(folder, max_shard_size="10KB")
    with pytest.raises(BadInput, match=r"holds no \.safetensors file"):
        Shards(tmp_path)
    with pytest.raises(BadInput, match=r"has no config\.json"):
        open_hollow(tmp_path)
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    whole = first.read_bytes()
    first.write_bytes(whole[:-8])
    with pytest.raises(CorruptFile, match=first.name):
        Shards(folder)
    first.write_bytes(whole)
    second.unlink()
    with pytest.raises(BadInput, match=f"lacks the shard '{second.name}'"):
        Shards(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != second.name}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match=r"lacks \d+ tensors of LlamaForCausalLM, first"):
        Streamed(open_hollow(folder), Shards(folder))
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CorruptFile, match="is not an index of shards"):
        Shards(folder)


def test_not_a_number_in_a_shard_is_named(tmp_path):
    model = family("llama", torch.float32)
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = float("nan")
    model.save_pretrained(tmp_path)
    hollow = open_hollow(tmp_path)
    with pytest.raises(NotFinite, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' in '.*model\.safetensors'"):
        walk(hollow, survey(hollow), batches("llama"), ["norms"], visit, source=Streamed(hollow, Shards(tmp_path)),
             state=tmp_path / "out")  # fmt: skip


def test_results_need_a_place(tmp_path):
    family("llama", torch.float32).save_pretrained(tmp_path)
    hollow = open_hollow(tmp_path)
    with pytest.raises(BadInput, match="needs state="):
        walk(hollow, survey(hollow), batches("llama"), ["norms"], visit, source=Streamed(hollow, Shards(tmp_path)))


def test_a_configuration_of_no_known_class_is_refused(tmp_path):
    family("llama", torch.float32).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForTheWin"]}))
    with pytest.raises(BadInput, match="is a LlamaForTheWin, which is no model class"):
        open_hollow(tmp_path)
