"""Configurations of transformers made tiny by what their fields are called: two layers, four heads of eight, 32 wide.

A configuration is built anew from its defaults with small values for every field that is a size, sub-configurations first, so
that what a class derives from its fields is derived again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["IMAGE", "VOCABULARY", "tiny"]

VOCABULARY, WIDTH, HEADS, INNER, IMAGE = 96, 32, 4, 64, 32

# The first pattern that matches a field's whole name says its value; an entry is a value or a function of the default.
_INTEGERS: tuple[tuple[str, Any], ...] = (
    (r"(.*_)?vocab(ulary)?_size(_per_.*)?|.*_vocab_size", VOCABULARY),
    (r"num_kv_shared_layers", 0),
    (r"window_size", 4),
    (r"mamba_(n|num)_heads", 4),
    (r"mamba_(d_head|head_dim)", 16),
    (r"mamba_d_ssm", 64),
    (r"mamba_n_groups", 1),
    (r"num_key_value_heads|num_kv_heads|n_head_kv|multi_query_group_num|.*_num_key_value_heads|num_key_value_groups",
     lambda v: 1 if v == 1 else 2),
    (r"(.*_)?head_dim|d_kv|attention_head_size", 8),
    (r"(q|kv|qk|o|.*)_lora_rank|lora_rank", 8),
    (r"rotary_dim", 4),
    (r"linear_num_(key|value)_heads", 2),
    (r"(encoder_|decoder_|linear_)?(num_)?(attention_heads|attn_heads)|n_heads?|num_heads|.*_attention_heads", HEADS),
    (r"(num_)?hidden_layers|n_layers?|num_layers|(num_)?(encoder|decoder)_layers|num_(encoder|decoder)_layers"
     r"|.*_hidden_layers", lambda v: min(v, 2)),
    (r"moe_intermediate_size|expert_.*_size|.*expert_intermediate_size|moe_dim", WIDTH),
    (r"(.*_)?intermediate_size|ffn_dim|(encoder|decoder)_ffn_dim|n_inner|d_ff|ffn_hidden_size|mlp_dim|.*ffn_.*dim|dim_feedforward"
     r"|.*_intermediate_dim|dff|ffn_size|hidden_dim|feed_forward_hidden_size", INNER),
    (r"(num_(local_|routed_)?experts|n_routed_experts|moe_num_experts|num_experts_total|ffn_num_experts)", lambda v: min(v, 4)),
    (r"(num_experts_per_tok(en)?|moe_k|moe_top_?k|top_k|router_top_k|num_selected_experts)", lambda v: min(v, 2)),
    (r"n_group|topk_group|num_expert_groups?", 1),
    (r"n_shared_experts|num_shared_experts", 1),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", lambda v: min(v, 1)),
    (r"(d_model|n_embd|dim|emb_dim|embedding_size|word_embed_proj_dim|hidden_size|lru_width|rnn_hidden_size|d_embed|model_dim"
     r"|.*_hidden_size|projection_dim|d_inner|attention_hidden_size|input_embed_dim|out_hidden_size|text_dim|.*_embed_dim"
     r"|decoder_dim|encoder_dim|fusion_hidden_size|decoder_hidden_size|bottleneck_features|proj_dim)", WIDTH),
    (r"image_size|img_size|input_size", lambda v: IMAGE),
    (r"patch_size|patch_stride", lambda v: min(v, 8)),
    (r"num_frames", lambda v: min(v, 2)),
    (r"num_queries|decoder_num_queries|num_query.*", lambda v: min(v, 8)),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_source_positions|max_target_positions"
     r"|context_length", lambda v: min(v, 64)),
    (r"sliding_window|local_window_size|attention_window|window", lambda v: min(v, 16)),
    (r"mamba_d_state|state_size|ssm_state_size", lambda v: min(v, 8)),
    (r"num_labels|num_classes", lambda v: min(v, 5)),
)  # fmt: skip
_DEPTHS = re.compile(r".*(depth|layers|blocks|num_block).*")
_WIDTHS = re.compile(r".*(hidden_sizes?|dims?|channels?|widths?|sizes_list|encoder_hidden|embed).*")
_TOKENS = re.compile(r".*(_token_id|_token_index|_token_ids|_id)$")


def tiny(kind: type, special: Mapping[str, Any] | None = None) -> Any:
    """A small ``kind`` (a configuration class of transformers); ``special`` are fields that override what the names say."""
    return kind(**{**_fields(kind()), **(special or {})})


def _fields(config: Any) -> dict[str, Any]:
    """The fields of ``config`` that are sizes, made small."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        if hasattr(value, "to_dict") and hasattr(type(value), "model_type"):
            found[name] = type(value)(**_fields(value))
        elif not name.startswith("_") and (small := _small(name, value, config)) is not None:
            found[name] = small
    return found


def _small(name: str, value: Any, config: Any) -> Any:
    if isinstance(value, bool):
        return False if name == "use_cache" else None
    if isinstance(value, int):
        return _integer(name, value, config)
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        layers = getattr(config, "num_hidden_layers", None)
        return list(value[:2]) if len(value) == layers and layers > 4 else _integers(name, list(value))
    return None


def _integer(name: str, value: int, config: Any) -> int | None:
    heads = getattr(config, "num_heads", None)
    if name == "embed_dim" and isinstance(heads, (list, tuple)):
        return 8 * heads[0]  # a pyramid whose width doubles with its heads
    if name == "embed_dim":
        return WIDTH
    if name == "num_key_value_heads" and "kv_lora_rank" in vars(config):
        return HEADS  # latent attention: keys and values of every head come from the shared latent
    if _TOKENS.fullmatch(name):
        return value if value < VOCABULARY else value % VOCABULARY
    for pattern, small in _INTEGERS:
        if re.fullmatch(pattern, name):
            return small(value) if callable(small) else min(value, small)
    return None


def _integers(name: str, values: list[int]) -> list[int] | None:
    """Depths become one, widths keep their ratios; everything else (strides, kernels, heads, stages) stays."""
    if re.fullmatch(r"image_size|img_size|input_size", name):
        return [IMAGE] * len(values)
    if "head" in name or "ratio" in name or "stride" in name or "kernel" in name or "indices" in name or "index" in name:
        return None
    if _DEPTHS.fullmatch(name):
        return [min(v, 2 if "depth" in name else 1) for v in values]
    if _WIDTHS.fullmatch(name) and max(values) > WIDTH and values[0] != 3:
        unit = min(values) / 16
        return [max(8, 8 * round(v / unit / 8)) for v in values]
    return None
