"""Word-level language modelling on the Brown corpus: truncated back-propagation through time, perplexity of the streams."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.nets.wordlm import WordLM
from benchmarks.tasks.reading import columns, kept
from secateurs.comparing.running.data import Split
from secateurs.comparing.running.training import Training

__all__ = ["Text", "data", "perplexity", "train", "vocabulary", "wordlm"]

UNKNOWN, END = "<unk>", "<eos>"
STREAMS, CHUNK = 20, 50  # of the evaluation


class Text:
    """A split: word ids ``[words]``; as examples, windows of ``unroll`` words with the words that follow each."""

    def __init__(self, ids: np.ndarray, unroll: int):
        self.ids, self.unroll = torch.from_numpy(np.array(ids)), unroll

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.unroll

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Words ``[unroll, n]`` and the next ones, of the same shape."""
        at = torch.arange(self.unroll)[:, None] + self.unroll * index[None]
        return self.ids[at], self.ids[at + 1]


def wordlm(width: float = 200, words: int = 10_000, layers: int = 2, dropout: float = 0.0, init: float = 0.1) -> WordLM:
    """The two-layer word LSTM; ``width`` is that of its embedding and cells."""
    return WordLM(int(width), words, layers, dropout, init)


def data(words: int = 10_000, unroll: int = 20) -> dict[str, Text]:
    """The corpus' own splits, lower-cased, in the ``words`` most frequent words of the training text."""
    return {split: Text(_ids(split, words), unroll) for split in ("train", "validation", "test")}


def train(training: Training) -> None:
    """Streams of consecutive text side by side, the state carried from step to step; a seed starts them at its own place."""
    model, text = training.model, training.data["train"].source
    words = _turned(text.ids, training.seed, training.batch)
    last = (len(words) - 1) // text.unroll
    optimizer = training.make_optimizer()
    carry = training.start(optimizer, model.start(training.batch))
    for step in training.remaining():
        at = step % last
        if at == 0 and step:  # the corpus begins again: so does the state
            carry = model.start(training.batch)
        here = words[at * text.unroll : (at + 1) * text.unroll + 1]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=training.autocast):
            logits, state = model(here[:-1], carry)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), here[1:].flatten())
        carry = (state[0].detach().float(), state[1].detach().float())
        loss.backward()
        training.clip()
        optimizer.step()
        training.done(step, loss, carry=carry)


@torch.no_grad()
def perplexity(model: WordLM, split: Split) -> float:
    """Perplexity over 20 streams of the split, the state carried along each; every word but a stream's first counts."""
    words = _streams(split.source.ids, STREAMS)
    state, total, count = model.start(STREAMS), 0.0, 0
    for at in range(0, len(words) - 1, CHUNK):
        here = words[at : at + CHUNK + 1]
        logits, state = model(here[:-1], state)
        total += float(F.cross_entropy(logits.flatten(0, 1), here[1:].flatten(), reduction="sum"))
        count += here[1:].numel()
    return math.exp(total / count)


def vocabulary(words: Sequence[str], count: int) -> list[str]:
    """``<unk>`` and the ``count - 1`` most frequent words (ties in alphabetical order)."""
    ranked = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return [UNKNOWN, *(word for word, _ in ranked[: count - 1])]


def _turned(ids: Tensor, seed: int, batch: int) -> Tensor:
    """Training words ``[time, batch]``; the corpus is turned by a random number of words for each seed."""
    return _streams(ids.roll(-int(np.random.default_rng(seed).integers(len(ids)))), batch)


def _streams(ids: Tensor, batch: int) -> Tensor:
    time = len(ids) // batch
    return ids[: time * batch].view(batch, time).t().contiguous()


def _ids(split: str, count: int) -> np.ndarray:
    def make() -> np.ndarray:
        index = {word: i for i, word in enumerate(vocabulary(_words("train"), count))}
        return np.asarray([index.get(word, index[UNKNOWN]) for word in _words(split)], np.int64)

    return kept(f"brown-{split}-{count}", "brown", split, make)


def _words(split: str) -> list[str]:
    """The split's words, lower-cased, with an end mark behind every sentence."""
    return [word for line in columns("brown", split)["text"] for word in [*line.lower().split(), END]]
