"""Tiny random models of the transformers library, with fused and with written-out attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from secateurs.graph import Graph, trace
from tests.graph.checking import check

transformers = pytest.importorskip("transformers")

IDS = torch.arange(12).reshape(2, 6) % 30
SMALL: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
ROUNDED = 1e-4
"""Norms and rotary caches are computed in float32 whatever the model's precision."""


def pictures(n: int = 32) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}


def words() -> dict[str, torch.Tensor]:
    return {"input_ids": IDS}


def made(name: str, config: str, attention: str = "sdpa", **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = getattr(transformers, config)(**fields, attn_implementation=attention)
    return getattr(transformers, name)(settings)


def llama(attention: str) -> nn.Module:
    return made("LlamaForCausalLM", "LlamaConfig", attention, **SMALL, num_key_value_heads=2, head_dim=4)


def bert(attention: str) -> nn.Module:
    return made("BertForSequenceClassification", "BertConfig", attention, **SMALL)


def vit(attention: str) -> nn.Module:
    return made("ViTForImageClassification", "ViTConfig", attention, **SMALL, image_size=32, patch_size=8)


def gpt2(attention: str) -> nn.Module:
    return made("GPT2LMHeadModel", "GPT2Config", attention, vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=16,
                bos_token_id=0, eos_token_id=1)  # fmt: skip


def kinds(graph: Graph) -> dict[str, int]:
    return dict(Counter(group.kind for group in graph.prunable()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("build", "example", "expected"),
    [
        (llama, words, {"width": 1, "kv-heads": 2, "heads": 2, "head-dims": 3, "neurons": 2}),
        (bert, words, {"width": 1, "heads": 2, "head-dims": 4, "neurons": 3}),
        (vit, pictures, {"width": 1, "heads": 2, "head-dims": 4, "neurons": 2}),
        (gpt2, words, {"width": 1, "heads": 2, "head-dims": 4, "neurons": 2}),
    ],
)
def test_attention_written_either_way(
    build: Callable[[str], nn.Module], example: Any, expected: dict[str, int], attention: str
) -> None:
    assert kinds(check(build(attention), example(), ROUNDED)) == expected


def test_llama_key_value_heads() -> None:
    """Index map of grouped queries: head ``h`` of four uses key-value head ``h // 2``; rotary pairs are two apart."""
    graph = trace(llama("sdpa"), words())
    shared = graph["model.layers.0.self_attn.q_proj.weight:0#0"]
    rows = {member.tensor.split(".")[-2]: member.index.tolist() for member in shared.slices}
    assert rows["q_proj"] == rows["o_proj"] == [list(range(8)), list(range(8, 16))]
    assert rows["k_proj"] == rows["v_proj"] == [list(range(4)), list(range(4, 8))]
    pairs = graph["model.layers.0.self_attn.q_proj.weight:0#2"]
    assert pairs.slices[1].tensor.endswith("k_proj.weight") and pairs.slices[1].index.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert {"model.layers.1.self_attn.q_proj.weight", "model.rotary_emb.inv_freq"} <= {member.tensor for member in pairs.slices}
    assert graph["model.embed_tokens.weight:1"].norms == (
        "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.layers.1.input_layernorm",
        "model.layers.1.post_attention_layernorm", "model.norm",
    )  # fmt: skip


def test_the_cache_switch_is_put_back() -> None:
    model = llama("sdpa")
    model.config.use_cache = True
    trace(model, words())
    assert model.config.use_cache is True


def test_gpt2_table_is_tied() -> None:
    graph = trace(gpt2("sdpa"), words())
    width = graph["transformer.wte.weight:1"]
    assert [(m.tensor, m.role) for m in width.slices][:2] == [
        ("transformer.wte.weight", "in"),
        ("transformer.wpe.weight", "out"),
    ]
    heads = next(member for member in graph["transformer.h.0.attn.c_attn.weight:1#0"].slices if member.role == "out")
    assert heads.index[1].tolist() == [4, 5, 6, 7, 20, 21, 22, 23, 36, 37, 38, 39]


def t5() -> nn.Module:
    sizes = {"vocab_size": 32, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    return made("T5ForConditionalGeneration", "T5Config", "eager", **sizes, decoder_start_token_id=0)


def swin() -> nn.Module:
    return made("SwinForImageClassification", "SwinConfig", "eager", image_size=32, patch_size=4, embed_dim=8, depths=[2, 2],
                num_heads=[2, 4], window_size=4)  # fmt: skip


def mixtral() -> nn.Module:
    return made("MixtralForCausalLM", "MixtralConfig", **SMALL, num_key_value_heads=2, num_local_experts=4)


def test_t5() -> None:
    """A stack's position table is a member of the heads of all its layers; the encoder's states are returned."""
    graph = check(t5(), {"input_ids": IDS, "decoder_input_ids": IDS}, ROUNDED)
    assert kinds(graph)["neurons"] == 4
    table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    heads = next(group for group in graph.prunable() if any(member.tensor == table for member in group.slices))
    assert heads.kind == "heads" and any("encoder.block.1" in member.tensor for member in heads.slices)


def test_swin() -> None:
    """Merging puts four neighbours side by side: a stage's width is a column four times over."""
    graph = check(swin(), pictures(), ROUNDED)
    assert kinds(graph) == {"width": 2, "heads": 4, "head-dims": 8, "neurons": 4}
    merged = [
        m for g in graph.prunable() for m in g.slices if m.tensor.endswith("downsample.reduction.weight") and m.role == "in"
    ]
    assert [member.index.shape[1] for member in merged] == [4]


def test_mixture_of_experts() -> None:
    """Routing goes by softmax and largest values, so the experts stay; their neurons are one group for all of a layer."""
    graph = trace(mixtral(), words())
    neurons = [group for group in graph.prunable() if group.kind == "neurons"]
    assert [group.size for group in neurons] == [24, 24]
    assert [(m.tensor.rpartition(".")[2], m.dim, m.index.shape[1]) for m in neurons[0].slices] == [
        ("gate_up_proj", 1, 2), ("down_proj", 2, 1),
    ]  # fmt: skip
    frozen = [group for group in graph.groups if any(m.tensor.endswith("gate_up_proj") and m.dim == 0 for m in group.slices)]
    assert [group.frozen for group in frozen] == ["experts that data chooses"] * 2


DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
TIED = {"num_key_value_heads": 2, "head_dim": 4, "tie_word_embeddings": True}
MAMBA = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
DISTIL = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "vocab_size": 32}


def large() -> dict[str, torch.Tensor]:
    return pictures(64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "fields", "example"),
    [
        ("DistilBertForSequenceClassification", "DistilBertConfig", DISTIL, words),
        ("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL, words),
        ("Qwen3ForCausalLM", "Qwen3Config", SMALL | TIED, words),
        ("MambaForCausalLM", "MambaConfig", MAMBA, words),
        ("ConvNextForImageClassification", "ConvNextConfig", {"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4}, large),
        ("Dinov2ForImageClassification", "Dinov2Config", SMALL | {"image_size": 32, "patch_size": 8}, pictures),
        ("DebertaV2ForSequenceClassification", "DebertaV2Config", SMALL | DISENTANGLED, words),
    ],
)  # fmt: skip
def test_more_families(name: str, config: str, fields: dict[str, Any], example: Any) -> None:
    torch.manual_seed(0)
    graph = check(getattr(transformers, name)(getattr(transformers, config)(**fields)), example(), ROUNDED)
    assert {"neurons", "width"} & set(kinds(graph))
