"""The model, and the windows of text it is calibrated and judged on."""

from __future__ import annotations

import functools
import random
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.language.grid import DOMAINS, MIXED
from benchmarks.tasks.reading import columns, root
from secateurs.statistics.text import Encoder, consecutive_windows, random_windows

__all__ = ["LENGTH", "SAMPLES", "calibration", "dense", "training_windows", "validation"]

LENGTH, SAMPLES = 256, 128
_AT_ONCE = 8  # windows
_FILES = {"captions-en": ("multi30k", "captions-en-"), "captions-de": ("multi30k", "captions-de-")}


@functools.cache
def dense() -> nn.Module:
    """The model as trained; not to be changed."""
    import transformers

    transformers.logging.disable_progress_bar()
    model: nn.Module = transformers.AutoModelForCausalLM.from_pretrained(_folder(), local_files_only=True)
    return model.eval()


def calibration(text: str, seed: int) -> list[dict[str, Tensor]]:
    """Batches of ``SAMPLES`` random windows of the training text of a domain; of ``mixed``, a quarter of them of each."""
    domains = DOMAINS if text == MIXED else (text,)
    each = SAMPLES // len(domains)
    return _batches(torch.cat([training_windows(domain, each, LENGTH, seed) for domain in domains]))


def training_windows(domain: str, count: int, length: int, seed: int) -> Tensor:
    """``[count, length]`` token ids from random places of a domain's training text."""
    return random_windows(_texts(domain, "train"), _encoder(), count, length, seed)


def validation(domain: str, most: int | None) -> list[dict[str, Tensor]]:
    """Labelled batches of a domain's validation text; of its windows ``most`` at equal distances, where there are more."""
    windows = _windows(domain)
    if most is not None and most < len(windows):
        windows = windows[torch.arange(most) * len(windows) // most]
    return [{**batch, "labels": batch["input_ids"]} for batch in _batches(windows)]


@functools.cache
def _windows(domain: str) -> Tensor:
    texts = _texts(domain, "validation")
    random.Random(1).shuffle(texts)
    return consecutive_windows(texts, _encoder(), LENGTH)


def _texts(domain: str, split: str) -> list[str]:
    dataset, prefix = _FILES.get(domain, (domain, ""))
    return [text for text in columns(dataset, f"{prefix}{split}")["text"] if text.strip()]


@functools.cache
def _encoder() -> Encoder:
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(_folder(), local_files_only=True)
    return Encoder.of(tokenizer)


def _folder() -> str:
    return str(root() / "models" / "llama-4domains")


def _batches(windows: Tensor) -> list[dict[str, Tensor]]:
    return [{"input_ids": part} for part in windows.split(_AT_ONCE)]
