"""What the names of fields do not tell: values for single model types, and inputs of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["INPUTS", "SPECIAL"]

SPECIAL: dict[str, dict[str, Any]] = {
    "bit": {"num_groups": 8},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "donut-swin": {"image_size": 128},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dpt": {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320},
    "esm": {"vocab_size": 96, "pad_token_id": 1, "mask_token_id": 32},
    "esmc": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
    "hunyuan_v1_moe": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "levit": {"image_size": 224, "patch_size": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "longcat_flash": {"qk_head_dim": 16},
    "mamba2": {"head_dim": 16, "num_heads": 4, "n_groups": 1},
    "ministral": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
    "mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32},
    "mobilevitv2": {"image_size": 64},
    "nemotron": {"num_key_value_heads": 2},
    "neomme": {"head_dim": 16},
    "reformer": {"is_decoder": True},
    "swin": {"image_size": 128},
    "t5gemma": {"use_cache": False},
    "xmod": {"default_language": "en_XX"},
}

INPUTS: dict[str, Callable[[], dict[str, Tensor]]] = {}
