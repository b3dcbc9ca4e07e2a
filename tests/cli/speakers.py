"""Folders of tiny random models that read text, images or sound, each with what prepares its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = [f"w{i}" for i in range(40)]
MARKS = {"<s>": 0, "</s>": 1, "<unk>": 2}
SIZE = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 32,
}  # fmt: skip
SPECIAL = {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1}
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 3}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SIZE | {"num_key_value_heads": 1}),
    "bert": ("BertForMaskedLM", "BertConfig", SIZE),
    "bare-bert": ("BertModel", "BertConfig", SIZE),
    "t5": ("T5ForConditionalGeneration", "T5Config", SPECIAL | {
        "vocab_size": 48, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}),
    "bare-t5": ("T5Model", "T5Config", SPECIAL | {
        "vocab_size": 48, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}),
    "bart": ("BartForConditionalGeneration", "BartConfig", SPECIAL | {
        "vocab_size": 48, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32}),
    "vit": ("ViTForImageClassification", "ViTConfig", SIZE | IMAGE),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", SIZE | IMAGE),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", {
        "image_size": 32, "hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2}),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", SPECIAL | {
        "vocab_size": 48, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_mel_bins": 4,
        "max_source_positions": 50, "max_target_positions": 32}),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", SIZE | {
        "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2}),
}  # fmt: skip


def save_model(name: str, folder: Path) -> Path:
    """A random model of the family, in ``folder``."""
    import transformers

    kind, config, settings = MODELS[name]
    torch.manual_seed(0)
    getattr(transformers, kind)(getattr(transformers, config)(**settings)).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, template: str | None = None) -> None:
    """A tokenizer of forty words; ``template`` is what a text gets around it, as ``"<s> $A </s>"``."""
    import tokenizers
    import transformers

    vocabulary = MARKS | {word: i + 3 for i, word in enumerate(["a", *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if template:
        marks = list(MARKS.items())
        inner.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=marks)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
