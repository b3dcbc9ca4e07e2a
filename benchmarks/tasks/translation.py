"""English to German on Multi30k: one subword vocabulary for both sides, BLEU of greedy translations."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.nets.translator import Translator
from benchmarks.tasks.reading import CACHE, beside, columns, kept
from secateurs.comparing.running.data import Split
from secateurs.comparing.running.training import Training

__all__ = ["Pairs", "batches", "bleu", "data", "train", "translator"]

PAD, BEGIN, END = 0, 1, 2
POOL = 50  # batches that are sorted by length together
LONGEST = 60  # subwords of a sentence; what is longer is cut


class Pairs:
    """A split: subword ids ``[pairs, 2, LONGEST]`` of both sides and the target sentences as they were."""

    def __init__(self, ids: np.ndarray, sentences: list[str], words: int):
        self.ids, self.sentences, self.words = np.array(ids), sentences, words

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Source ``[time, n]``, its lengths ``[n]``, the target behind a begin mark and the target, both ``[time, n]``."""
        return self.at(index.numpy())

    def at(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """:meth:`batch` of a NumPy index."""
        source, counts = trimmed(self.ids[index, 0])
        target, _ = trimmed(self.ids[index, 1])
        return source, counts, torch.cat([torch.full_like(target[:1], BEGIN), target[:-1]]), target


def translator(width: float = 128, words: int = 4_000, layers: int = 2, dropout: float = 0.0) -> Translator:
    """The encoder-decoder LSTM with attention; ``width`` is that of its embeddings and cells."""
    return Translator(int(width), words, layers, dropout)


def data(words: int = 4_000) -> dict[str, Pairs]:
    """The data set's own splits in ``words`` subwords, learned from both sides of the training pairs."""
    return {split: Pairs(_ids(split, words), _pairs(split)["de"], words) for split in ("train", "validation", "test")}


def train(training: Training) -> None:
    """Teacher forcing on batches of similar length, padding left out of the loss."""
    model, pairs = training.model, training.data["train"].source
    lengths = (pairs.ids != PAD).sum(2)
    epoch_of = cache(lambda epoch: batches(lengths, training.batch, training.seed, epoch))
    optimizer = training.make_optimizer()
    training.start(optimizer)
    for step in training.remaining():
        epoch, at = divmod(step, len(pairs) // training.batch)
        *inputs, target = pairs.at(epoch_of(epoch)[at])
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=training.autocast):
            logits = model(*inputs)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=PAD)
        loss.backward()
        training.clip()
        optimizer.step()
        training.done(step, loss)


@torch.no_grad()
def bleu(model: Translator, split: Split) -> float:
    """BLEU on the split's own words: it is tokenised already, so sacrebleu is told not to."""
    import sacrebleu

    said = translated(model, split.source)
    return float(sacrebleu.corpus_bleu(said, [split.source.sentences], tokenize="none", force=True).score)


def translated(model: Translator, split: Pairs) -> list[str]:
    """Greedy translations in the order of the split."""
    order = np.argsort((split.ids[:, 0] != PAD).sum(1), kind="stable")
    tokenizer, said = _tokenizer(split.words), [""] * len(split)
    for at in range(0, len(order), 128):
        index = order[at : at + 128]
        source, counts = trimmed(split.ids[index, 0])
        found = model.greedy(source, counts, BEGIN, END, most=int(1.5 * source.shape[0]) + 10)
        for i, row in zip(index.tolist(), found.t().tolist(), strict=True):
            said[i] = tokenizer.decode(row[: row.index(END)] if END in row else row)
    return said


def batches(lengths: np.ndarray, batch: int, seed: int, epoch: int) -> np.ndarray:
    """The pairs of an epoch's batches ``[batches, batch]``: a permutation, sorted by length inside pools, the batches shuffled.

    ``lengths`` ``[pairs, 2]`` are those of source and target; pairs that do not fill a batch are left out of their epoch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))[: len(lengths) // batch * batch]
    rows = []
    for at in range(0, len(order), POOL * batch):
        pool = order[at : at + POOL * batch]
        rows.append(pool[np.lexsort(lengths[pool].T)].reshape(-1, batch))
    every = np.concatenate(rows)
    return every[np.random.default_rng([seed, epoch, 1]).permutation(len(every))]


def trimmed(ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Rows of ids to ``[time, batch]`` without the padding that all share, and their lengths."""
    lengths = (ids != PAD).sum(1)
    return torch.from_numpy(np.ascontiguousarray(ids[:, : lengths.max()].T)), torch.from_numpy(lengths)


def _pairs(split: str) -> dict[str, list[str]]:
    return columns("multi30k", f"translation-{split}")


def _ids(split: str, words: int) -> np.ndarray:
    """``[pairs, 2, LONGEST]``: source and target subwords, each with an end mark and padding."""

    def make() -> np.ndarray:
        text = _pairs(split)
        out = np.full((len(text["en"]), 2, LONGEST), PAD, np.int64)
        for side, language in enumerate(("en", "de")):
            for i, coded in enumerate(_tokenizer(words).encode_batch(text[language])):
                ids = [*coded.ids[: LONGEST - 1], END]
                out[i, side, : len(ids)] = ids
        return out

    return kept(f"multi30k-{split}-{words}", "multi30k", f"translation-{split}", make)


@cache
def _tokenizer(words: int) -> Any:
    """The subwords, learned from both sides of the training pairs; written beside the cached ids as JSON."""
    from tokenizers import Tokenizer

    path = CACHE / f"multi30k-{words}.json"
    if not path.is_file():
        pairs = _pairs("train")
        _learned(pairs["en"] + pairs["de"], words).save(str(beside(path)))
        beside(path).replace(path)
    return Tokenizer.from_file(str(path))


def _learned(lines: list[str], words: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    coder = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    coder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    coder.decoder = decoders.BPEDecoder(suffix="</w>")
    special = ["<pad>", "<begin>", "<end>", "<unk>"]
    coder.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=words, special_tokens=special, end_of_word_suffix="</w>",
                                                         show_progress=False))  # fmt: skip
    return coder
