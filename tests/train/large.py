"""A Llama with random weights, made on disk one shard at a time, and a tokenizer and a text for it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from torch import Tensor

WORDS = [f"w{i}" for i in range(200)]


def write_llama(folder: Path, **sizes: int) -> int:
    """Write the model in bfloat16, a shard per layer, into the new ``folder``; the bytes of its weights."""
    import safetensors.torch
    import transformers
    from accelerate import init_empty_weights

    config = transformers.LlamaConfig(dtype="bfloat16", architectures=["LlamaForCausalLM"], **sizes)
    with init_empty_weights():
        hollow = transformers.LlamaForCausalLM(config)
    shards: dict[str, dict[str, torch.Size]] = {}
    for name, parameter in hollow.named_parameters():
        shards.setdefault(name.rsplit(".", 3)[0] if ".layers." not in name else name.split(".")[2], {})[name] = parameter.shape
    generator, where = torch.Generator().manual_seed(0), {}
    folder.mkdir(parents=True)
    for i, shapes in enumerate(shards.values()):
        file = folder / f"model-{i:05d}.safetensors"
        safetensors.torch.save_file({name: _values(shape, generator) for name, shape in shapes.items()}, file)
        where |= dict.fromkeys(shapes, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    config.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def write_text(file: Path, words: int) -> None:
    """Words of the tokenizer at random."""
    file.write_text(" ".join(random.Random(0).choices(WORDS, k=words)))


def _values(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return (torch.randn(shape, generator=generator) * 0.02 if len(shape) > 1 else torch.ones(shape)).bfloat16()


def _tokenizer():
    import tokenizers
    import transformers

    marks = {"<s>": 0, "</s>": 1, "<unk>": 2}
    vocabulary = marks | {word: i + 3 for i, word in enumerate(WORDS)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
