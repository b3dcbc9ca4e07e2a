"""Text as calibration batches: windows as a causal model, an encoder or an encoder-decoder was trained to read them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.cli.opening import Opened
from secateurs.cli.text import at_once, batches_of, is_causal, known_ids, open_tokenizer, usual_length
from secateurs.cli.wanted import Batches, Wanted
from secateurs.errors import BadInput
from secateurs.statistics.text import Encoder, random_windows, read_texts

__all__ = ["own_loss", "shifted", "takes_labels", "text_batches"]


def text_batches(wanted: Wanted, opened: Opened) -> tuple[Batches, str]:
    """Random windows as the model was trained to read them, and words for them.

    A causal model gets them as they are cut. An encoder gets each between the marks its tokenizer puts around a text. An
    encoder-decoder reads the first half and is to continue with the second: the labels are that half, which the decoder gets
    shifted by one behind its start token.
    """
    tokenizer = open_tokenizer(opened, wanted.trust_remote_code)
    length = wanted.length or usual_length(opened.model)
    texts = read_texts(wanted.source, wanted.column or "text")
    if own_loss(opened.model):
        windows = random_windows(texts, Encoder.of(tokenizer, known_ids(opened.model)), wanted.samples, length, wanted.seed)
        return batches_of(windows), f"{wanted.samples} windows of {length} tokens of {wanted.source}"
    paired = bool(getattr(getattr(opened.model, "config", None), "is_encoder_decoder", False))
    first, last = _marks(tokenizer)
    inner = length - (2 if paired else 1) * (len(first) + len(last))
    if inner < 2:
        raise BadInput(f"--length {length}: windows need at least {length - inner + 2} tokens, the marks included")
    encoder = Encoder(Encoder.of(tokenizer).encode, None, last[-1] if last else None, known_ids(opened.model))
    windows = random_windows(texts, encoder, wanted.samples, inner, wanted.seed)
    words = f"{wanted.samples} windows of {length} tokens of {wanted.source}, marks included"
    if not paired:
        return batches_of(_between(windows, first, last)), words
    read, said = (_between(half, first, last) for half in windows.tensor_split([inner - inner // 2], dim=1))
    return _pairs(opened.model, read, said), f"{words}: the first half is read, the second to be said"


def _pairs(model: nn.Module, read: Tensor, said: Tensor) -> Batches:
    """``labels`` where the model has a loss for them, or else what its loss would make of them."""
    size = at_once(read.shape[1] + said.shape[1])
    name, given = ("labels", said) if takes_labels(model) else ("decoder_input_ids", shifted(model, said))
    return [{"input_ids": ids, name: own} for ids, own in zip(read.split(size), given.split(size), strict=True)]


def takes_labels(model: nn.Module) -> bool:
    """Whether ``labels`` is an argument of its ``forward``."""
    return "labels" in inspect.signature(model.forward).parameters


def shifted(model: nn.Module, labels: Tensor) -> Tensor:
    """What a decoder reads to say ``labels``: its start token, then all but the last of them."""
    config: Any = model.config
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise BadInput(f"the configuration of this {type(model).__name__} has no decoder_start_token_id: its decoder cannot "
                       "begin")  # fmt: skip
    return torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], 1)


def _between(windows: Tensor, first: list[int], last: list[int]) -> Tensor:
    before, after = (torch.tensor(marks, dtype=torch.long).expand(len(windows), -1) for marks in (first, last))
    return torch.cat([before, windows, after], 1)


def _marks(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and behind a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def own_loss(model: nn.Module) -> bool:
    """Whether text predicts itself by the model: a causal one, by its name or since it continues text."""
    config: Any = getattr(model, "config", None)
    continues = hasattr(model, "can_generate") and model.can_generate()  # type: ignore[operator]
    return is_causal(model) or (continues and not getattr(config, "is_encoder_decoder", False))
