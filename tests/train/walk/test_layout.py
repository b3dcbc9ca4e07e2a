"""Folders whose tensors transformers converts when it loads them: read tensor by tensor, and turned back."""

import importlib
import json

import pytest
import torch

from secateurs.errors import BadInput
from secateurs.train import prune_folder
from secateurs.train.walk import Shards, open_folder
from tests.models.families import family

transformers = pytest.importorskip("transformers")


@pytest.fixture(params=["mixtral", "qwen3-moe", "vit", "llama", "gpt2"])
def saved(request, tmp_path):
    """A model and the folder it was saved to."""
    model = family(request.param, torch.float32)
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    return model, tmp_path / "model"


def test_every_tensor_is_that_of_the_model_in_memory(saved):
    model, folder = saved
    source, state = open_folder(folder), model.state_dict()
    assert source.names.keys() >= state.keys()
    assert all(torch.equal(source.tensor(name), value) for name, value in state.items())


def test_what_is_turned_back_is_what_was_stored(saved):
    _, folder = saved
    source = open_folder(folder)
    source.layout.check_reversible()
    names = {name: name for group in source.layout.groups for name in group.names}
    back = dict(source.layout.store({name: source.tensor(name) for name in names}))
    stored = Shards(folder)
    assert set(back) == {name for group in source.layout.groups for name in group.stored} <= set(stored.names)
    assert all(torch.equal(value, stored.get(name)) for name, value in back.items())


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "vit"])
def test_a_pruned_folder_has_the_layout_of_the_dense_one(name, tmp_path):
    family(name, torch.bfloat16).save_pretrained(tmp_path / "model", max_shard_size="10KB")
    done = prune_folder(tmp_path / "model", sparsity=0.5, out=tmp_path / "out", memory="64GB")
    before, after = Shards(tmp_path / "model").hollow(), Shards(tmp_path / "out").hollow()
    assert {n: (t.shape, t.dtype) for n, t in before.items()} == {n: (t.shape, t.dtype) for n, t in after.items()}
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == set(before)
    source = open_folder(tmp_path / "out")
    for entry in done.plan.entries:
        assert torch.count_nonzero(source.tensor(entry.name)[~done.plan.masks[entry.name]]) == 0


def test_experts_are_stacked_in_the_order_of_their_numbers(tmp_path):
    model = family("mixtral", torch.float32, num_local_experts=12)
    model.save_pretrained(tmp_path)
    group = open_folder(tmp_path).layout.of("model.layers.0.mlp.experts.down_proj")
    assert [name.split(".")[5] for name in group.stored] == [str(i) for i in range(12)]
    assert torch.equal(open_folder(tmp_path).tensor(group.names[0]), model.model.layers[0].mlp.experts.down_proj)


def test_a_missing_expert_is_told(tmp_path):
    import safetensors.torch

    family("qwen3-moe", torch.float32).save_pretrained(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.3.down_proj.weight"]
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"model\.layers\.1\.mlp\.experts\.down_proj.*3, 16, 8.*4, 16, 8"):
        open_folder(tmp_path)


def one_way(model):
    """Rules that add up two stored halves, which nothing can take apart again."""
    from transformers.core_model_loading import ConversionOps, WeightConverter

    class Sum(ConversionOps):
        def convert(self, given, source_patterns, target_patterns, **kwargs):
            return {target_patterns[0]: sum(tensor for tensors in given.values() for tensor in tensors)}

        @property
        def reverse_op(self):
            raise NotImplementedError("sums cannot be taken apart")

    return [WeightConverter(["norm.half.weight", "norm.rest.weight"], "norm.weight", [Sum()])]


def test_what_cannot_be_turned_back_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    import safetensors.torch

    model = family("llama", torch.float32)
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    whole = tensors.pop("model.norm.weight")
    tensors |= {"model.norm.half.weight": whole / 2, "model.norm.rest.weight": whole / 2}
    (tmp_path / "model").mkdir()
    model.config.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    safetensors.torch.save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks 1 tensors of LlamaForCausalLM, first 'model\.norm\.weight'"):
        open_folder(tmp_path / "model")
    monkeypatch.setattr(importlib.import_module("transformers.conversion_mapping"), "get_model_conversion_mapping", one_way)
    assert torch.equal(open_folder(tmp_path / "model").tensor("model.norm.weight"), whole)
    with pytest.raises(BadInput, match=r"'model\.norm\.half\.weight' is converted by transformers.*cannot be turned back"):
        prune_folder(tmp_path / "model", sparsity=0.5, out=tmp_path / "out", memory="64GB")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
