"""Word-level language modelling on the Brown corpus: 10,000 words, truncated back-propagation through time, perplexity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.families import data
from benchmarks.families.nets.wordlm import State, WordLM
from benchmarks.families.setting import Setting

__all__ = ["Language", "vocabulary"]

UNKNOWN, END = "<unk>", "<eos>"


class Language:
    """Streams of consecutive text side by side; every seed starts them at another place of the corpus."""

    metric, better = "perplexity", "lower"

    def __init__(self, setting: Setting, folder: Path):
        self.setting, self.folder = setting, folder
        self.unroll = int(setting.shape["unroll"])
        self._turned: tuple[int, Tensor] | None = None  # the columns of the seed last asked for

    def widths(self) -> Sequence[float]:
        return range(1, int(self.setting.width) + 1)

    def build(self, width: float) -> nn.Module:
        shape = self.setting.shape
        return WordLM(int(width), int(shape["words"]), int(shape["layers"]), shape["dropout"], shape["init"])

    def prepare(self) -> None:
        for split in ("train", "validation", "test"):
            self._ids(split)

    def start(self, model: Any) -> State:
        return model.start(self.setting.batch)

    def loss(self, model: Any, seed: int, step: int, carry: State) -> tuple[Tensor, State]:
        words, last = self._columns(seed), (self._length - 1) // self.unroll
        at = step % last
        if at == 0 and step:  # the corpus begins again: so does the state
            carry = self.start(model)
        here = words[at * self.unroll : (at + 1) * self.unroll + 1]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.setting.bfloat16):
            logits, state = model(here[:-1], carry)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), here[1:].flatten())
        return loss, (state[0].detach().float(), state[1].detach().float())

    @torch.no_grad()
    def evaluate(self, model: Any, split: str) -> float:
        """Perplexity over 20 streams of the split, the state carried along each; every word but a stream's first counts."""
        ids = torch.from_numpy(np.array(self._ids(split)))
        words = _streams(ids, 20)
        state, total, count = model.start(20), 0.0, 0
        for at in range(0, len(words) - 1, 50):
            here = words[at : at + 51]
            logits, state = model(here[:-1], state)
            total += float(F.cross_entropy(logits.flatten(0, 1), here[1:].flatten(), reduction="sum"))
            count += here[1:].numel()
        return math.exp(total / count)

    @cached_property
    def _length(self) -> int:
        return len(self._ids("train")) // self.setting.batch

    def _columns(self, seed: int) -> Tensor:
        """Training words ``[time, batch]``; the corpus is turned by a random number of words for each seed."""
        if self._turned is None or self._turned[0] != seed:
            ids = np.array(self._ids("train"))
            offset = int(np.random.default_rng(seed).integers(len(ids)))
            self._turned = (seed, _streams(torch.from_numpy(np.roll(ids, -offset)), self.setting.batch))
        return self._turned[1]

    def _ids(self, split: str) -> np.ndarray:
        count = int(self.setting.shape["words"])
        path = self.folder / "data" / "brown" / f"{split}.parquet"

        def make() -> np.ndarray:
            index = {word: i for i, word in enumerate(vocabulary(_words(self.folder, "train"), count))}
            return np.asarray([index.get(word, index[UNKNOWN]) for word in _words(self.folder, split)], np.int64)

        return data.kept(f"brown-{split}-{count}", path, make)


def vocabulary(words: Sequence[str], count: int) -> list[str]:
    """``<unk>`` and the ``count - 1`` most frequent words (ties in alphabetical order)."""
    ranked = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return [UNKNOWN, *(word for word, _ in ranked[: count - 1])]


def _words(folder: Path, split: str) -> list[str]:
    """The split's words, lower-cased, with an end mark behind every sentence."""
    return [word for line in data.columns(folder, "brown", split)["text"] for word in [*line.lower().split(), END]]


def _streams(ids: Tensor, batch: int) -> Tensor:
    time = len(ids) // batch
    return ids[: time * batch].view(batch, time).t().contiguous()
