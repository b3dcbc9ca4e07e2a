"""Tiny random models of many families, with batches for them."""

from __future__ import annotations

import torch

SIZE = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = SIZE | {"num_key_value_heads": 1}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BLOOM = {"vocab_size": 48, "hidden_size": 16, "n_layer": 2, "n_head": 2} | TOKENS
EXPERTS = GROUPED | {"head_dim": 8}

#: name -> (model class, configuration class, settings, the paths of its block lists)
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED, ["model.layers"]),
    "mistral": ("MistralForCausalLM", "MistralConfig", GROUPED, ["model.layers"]),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED, ["model.layers"]),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", EXPERTS, ["model.layers"]),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", EXPERTS, ["model.layers"]),
    "gemma3": (  # blocks that differ in the mask they get
        "Gemma3ForCausalLM", "Gemma3TextConfig",
        EXPERTS | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}, ["model.layers"],
    ),
    "phi": ("PhiForCausalLM", "PhiConfig", GROUPED, ["model.layers"]),
    "opt": ("OPTForCausalLM", "OPTConfig", SIZE | {"ffn_dim": 24, "word_embed_proj_dim": 16}, ["model.decoder.layers"]),
    "gpt2": (
        "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": 48, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2},
        ["transformer.h"],
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SIZE, ["gpt_neox.layers"]),
    "bloom": ("BloomForCausalLM", "BloomConfig", BLOOM, ["transformer.h"]),
    "falcon": ("FalconForCausalLM", "FalconConfig", SIZE, ["transformer.h"]),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", GROUPED | {"num_local_experts": 4}, ["model.layers"]),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM", "Qwen3MoeConfig",
        EXPERTS | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}, ["model.layers"],
    ),
    "gpt-oss": ("GptOssForCausalLM", "GptOssConfig", EXPERTS | {"num_local_experts": 4}, ["model.layers"]),
    "llama4": (
        "Llama4ForCausalLM", "Llama4TextConfig", EXPERTS | {"num_local_experts": 4, "intermediate_size_mlp": 24},
        ["model.layers"],
    ),
    "t5": (
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": 48, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "pad_token_id": 0,
         "decoder_start_token_id": 0},
        ["encoder.block", "decoder.block"],
    ),
    "bert": ("BertForMaskedLM", "BertConfig", SIZE, ["bert.encoder.layer"]),
    "vit": ("ViTForImageClassification", "ViTConfig", SIZE | {"image_size": 8, "patch_size": 4}, None),
    "whisper": (
        "WhisperForConditionalGeneration", "WhisperConfig",
        {"vocab_size": 48, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_mel_bins": 4,
         "max_source_positions": 8, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
         "decoder_start_token_id": 1},
        ["model.encoder.layers", "model.decoder.layers"],
    ),
}  # fmt: skip


def family(name, dtype=torch.float64, **settings):
    """A random model, in evaluation mode."""
    import transformers

    kind, config, given, _ = FAMILIES[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**(given | settings))).to(dtype).eval()
    for p in model.parameters():  # initialisers make small and equal numbers: spread them
        p.data = torch.randn_like(p) * 0.3
    return model


def batches(name, count=2, dtype=torch.float64):
    """Batches of two sequences."""
    generator = torch.Generator().manual_seed(1)
    return [_batch(name, generator, dtype) for _ in range(count)]


def _batch(name, generator, dtype):
    ids = torch.randint(3, 48, (2, 6), generator=generator)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator, dtype=dtype)}
    if name == "whisper":
        return {"input_features": torch.randn(2, 4, 16, generator=generator, dtype=dtype), "decoder_input_ids": ids}
    return {"input_ids": ids, "decoder_input_ids": ids[:, :4]} if name == "t5" else {"input_ids": ids}
