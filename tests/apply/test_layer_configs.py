"""Widths that differ from layer to layer, as overrides of a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.apply.layer_configs import lawful_values
from secateurs.errors import BadInput
from secateurs.formats.structure import record_of

pytest.importorskip("transformers")
IDS = torch.randint(3, 96, (2, 8), generator=torch.Generator().manual_seed(0))


def reads_heads_by_layer(layers: int = 3) -> Any:
    """A model of four heads, two of them for keys and values, whose class reads their numbers layer by layer."""
    modeling = pytest.importorskip("transformers.models.step3p7.modeling_step3p7")
    kind = modeling.Step3p7TextModel
    config = kind.config_class(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, layer_types=["full_attention"] * layers, mlp_layer_types=["dense"] * layers, sliding_window=16,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return kind(config).eval()


def reads_none() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                                        num_attention_heads=4, num_key_value_heads=2)).eval()  # fmt: skip


def uneven(model: nn.Module, **settings: Any) -> Any:
    """``model`` without heads, of which the layers lose different numbers."""
    return sc.prune(model, "magnitude", structures=["heads"], ratio=0.3, scope="kind", example={"input_ids": IDS}, **settings)


def rows(model: nn.Module) -> list[int]:
    return [p.shape[0] for name, p in model.named_parameters() if name.endswith("q_proj.weight")]


@torch.no_grad()
def test_folders_whose_layers_differ(tmp_path: Path) -> None:
    """Of either format: the configuration says every width, and the outputs are the same bits."""
    done = uneven(reads_heads_by_layer())
    assert len(set(rows(done.model))) > 1 and not done.is_exported
    assert record_of(done.model) is None
    sc.save(done.model, tmp_path / "dense", format="huggingface")
    said = json.loads((tmp_path / "dense" / "config.json").read_text())["per_layer_config"]
    heads = [said.get(str(layer), {}).get("num_attention_heads", 4) for layer in range(3)]
    assert heads == [n // 8 for n in rows(done.model)]
    again = type(done.model).from_pretrained(tmp_path / "dense", local_files_only=True).eval()
    assert torch.equal(again(IDS).last_hidden_state, done.model(IDS).last_hidden_state)
    sc.save(done.model, tmp_path / "ours")
    again = sc.load(tmp_path / "ours", lambda: type(done.model)(done.model.config))
    assert torch.equal(again(IDS).last_hidden_state, done.model(IDS).last_hidden_state)


@torch.no_grad()
def test_a_class_that_reads_none_goes_through_our_folder(tmp_path: Path) -> None:
    done = uneven(reads_none())
    assert len(set(rows(done.model))) > 1
    with pytest.raises(BadInput, match=r"LlamaForCausalLM have widths of their own.*secateurs\.load"):
        sc.save(done.model, tmp_path / "dense", format="huggingface")
    sc.save(done.model, tmp_path / "model")
    assert torch.equal(sc.load(tmp_path / "model")(IDS).logits, done.model(IDS).logits)


def test_values_that_may_follow() -> None:
    """64 became 48: so may a field of 64, and 4 heads of 16 may be 3; 5 divides nothing."""
    assert lawful_values(64, [(64, 48)]) == [48]
    assert lawful_values(4, [(64, 48)]) == [3]
    assert lawful_values(5, [(64, 48)]) == []
    assert lawful_values(4, [(64, 32), (64, 48)]) == [2, 3]
