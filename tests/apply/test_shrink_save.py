"""Shrunk models are saved and loaded: plain ones by a factory, Hugging Face ones by their configuration where it says them."""

import pytest
import torch

from secateurs.apply import shrink, verify_shrunk
from secateurs.errors import BadInput
from secateurs.formats import load, read_info, save
from secateurs.graph import trace
from tests.apply import shrinkable as nets

WORDS = torch.arange(10).view(2, 5)
TOKENS = {"input_ids": WORDS}


@pytest.mark.parametrize("make", [nets.Tied, nets.Tagger], ids=["tied", "lstm"])
def test_plain_modules(tmp_path, make):
    model = make().eval()
    graph = trace(model, WORDS)
    shrunk = shrink(model, graph, nets.keep(graph, drop=2)).model
    save(shrunk, tmp_path / "m")
    loaded = load(tmp_path / "m", make)
    assert torch.equal(loaded(WORDS), shrunk(WORDS)) and type(loaded) is make
    again = trace(loaded, WORDS)  # what was loaded can be shrunk and saved further
    smaller = shrink(loaded, again, nets.keep(again, drop=1)).model
    save(smaller, tmp_path / "n")
    assert torch.equal(load(tmp_path / "n", make)(WORDS), smaller(WORDS))


@pytest.mark.parametrize("kinds", [
    ("kv-heads", "neurons", "width"),
    *(pytest.param((kind,), marks=pytest.mark.slow) for kind in ("neurons", "kv-heads", "heads")),
])
def test_uniform_widths_make_an_ordinary_folder(tmp_path, kinds):
    from transformers import LlamaForCausalLM

    model = nets.llama().eval()
    graph = trace(model, TOKENS)
    keeps = {**nets.keep(graph, *kinds), **(nets.keep(graph, "width", drop=12) if "width" in kinds else {})}
    shrunk = shrink(model, graph, keeps)
    assert shrunk.ordinary and verify_shrunk(model, shrunk, graph, keeps).ok
    save(shrunk.model, tmp_path / "hf", format="huggingface")
    opened = LlamaForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert torch.allclose(opened(WORDS).logits, shrunk.model(WORDS).logits, atol=1e-6)
    save(shrunk.model, tmp_path / "m")
    assert "structure" not in read_info(tmp_path / "m")
    assert torch.equal(load(tmp_path / "m")(WORDS).logits, shrunk.model(WORDS).logits)
    sizes = (opened.config.intermediate_size, opened.config.num_key_value_heads, opened.config.hidden_size)
    assert sizes == (20 - ("neurons" in kinds), 3 - ("kv-heads" in kinds), 24 - 12 * ("width" in kinds))


def test_widths_that_differ_by_layer_are_loaded_here(tmp_path):
    model = nets.llama().eval()
    graph = trace(model, TOKENS)
    groups = [g for g in graph.prunable() if g.kind == "neurons"]
    keeps = {groups[0].name: torch.arange(13), groups[1].name: torch.arange(7)}
    shrunk = shrink(model, graph, keeps)
    assert not shrunk.ordinary and not shrunk.is_exported
    with pytest.raises(BadInput, match="which no configuration says"):
        save(shrunk.model, tmp_path / "hf", format="huggingface")
    save(shrunk.model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert torch.equal(loaded(WORDS).logits, shrunk.model(WORDS).logits)
    assert [layer.mlp.up_proj.out_features for layer in loaded.model.layers] == [13, 7]


def test_a_width_the_configuration_refuses_is_loaded_here(tmp_path):
    """23 channels for 6 heads: the module computes it, its configuration does not accept it."""
    model = nets.llama().eval()
    graph = trace(model, TOKENS)
    shrunk = shrink(model, graph, nets.keep(graph, "width"))
    assert not shrunk.ordinary and not shrunk.is_exported and len(shrunk.repaired) == 5
    save(shrunk.model, tmp_path / "m")
    assert torch.equal(load(tmp_path / "m")(WORDS).logits, shrunk.model(WORDS).logits)
