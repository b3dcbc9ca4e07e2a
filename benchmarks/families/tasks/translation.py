"""English to German on Multi30k: one subword vocabulary for both sides, BLEU of greedy translations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.families import data
from benchmarks.families.nets.translator import Translator
from benchmarks.families.order import epoch_order
from benchmarks.families.setting import Setting

__all__ = ["Translation", "batches"]

PAD, BEGIN, END = 0, 1, 2
POOL = 50  # batches that are sorted by length together
LONGEST = 60  # subwords of a sentence; what is longer is cut


class Translation:
    """The translator and its batches: sentences of similar length together, pools and batches in random order."""

    metric, better = "BLEU", "higher"

    def __init__(self, setting: Setting, folder: Path):
        self.setting, self.folder = setting, folder
        self._epoch: tuple[tuple[int, int], np.ndarray] | None = None  # the batches of the epoch last asked for

    def widths(self) -> Sequence[float]:
        return range(1, int(self.setting.width) + 1)

    def build(self, width: float) -> nn.Module:
        shape = self.setting.shape
        return Translator(int(width), int(shape["words"]), int(shape["layers"]), shape["dropout"])

    def prepare(self) -> None:
        for split in ("train", "validation", "test"):
            self._ids(split)

    def start(self, model: Any) -> Any:
        return None

    def loss(self, model: Any, seed: int, step: int, carry: Any) -> tuple[Tensor, Any]:
        index = self._batch(seed, step)
        source, counts = _trimmed(self._train[index, 0])
        target, _ = _trimmed(self._train[index, 1])
        first = torch.full_like(target[:1], BEGIN)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.setting.bfloat16):
            logits = model(source, counts, torch.cat([first, target[:-1]]))
        flat = logits.flatten(0, 1).float()
        return F.cross_entropy(flat, target.flatten(), ignore_index=PAD, label_smoothing=self.setting.smoothing), None

    @torch.no_grad()
    def evaluate(self, model: Any, split: str) -> float:
        """BLEU on the split's own words: it is tokenised already, so sacrebleu is told not to."""
        import sacrebleu

        ids = self._ids(split)
        order = np.argsort((ids[:, 0] != PAD).sum(1), kind="stable")
        said: dict[int, str] = {}
        for at in range(0, len(order), 128):
            index = order[at : at + 128]
            source, counts = _trimmed(ids[index, 0])
            found = model.greedy(source, counts, BEGIN, END, most=int(1.5 * source.shape[0]) + 10)
            for i, row in zip(index.tolist(), found.t().tolist(), strict=True):
                said[i] = self._tokenizer.decode(row[: row.index(END)] if END in row else row)
        wanted = data.columns(self.folder, "multi30k", f"translation-{split}")["de"]
        return sacrebleu.corpus_bleu([said[i] for i in range(len(wanted))], [wanted], tokenize="none", force=True).score

    @cached_property
    def _train(self) -> np.ndarray:
        return np.array(self._ids("train"))

    def _batch(self, seed: int, step: int) -> np.ndarray:
        epoch, at = divmod(step, len(self._train) // self.setting.batch)
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            lengths = (self._train != PAD).sum(2)
            self._epoch = (seed, epoch), batches(lengths, self.setting.batch, seed, epoch)
        return self._epoch[1][at]

    @cached_property
    def _tokenizer(self) -> Any:
        """The subwords, learned from both sides of the training pairs; written beside the cached ids as JSON."""
        from tokenizers import Tokenizer

        path = data.CACHE / f"multi30k-{int(self.setting.shape['words'])}.json"
        if not path.is_file():
            pairs = data.columns(self.folder, "multi30k", "translation-train")
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".part")
            _learned(pairs["en"] + pairs["de"], int(self.setting.shape["words"])).save(str(beside))
            beside.replace(path)
        return Tokenizer.from_file(str(path))

    def _ids(self, split: str) -> np.ndarray:
        """``[pairs, 2, LONGEST]``: source and target subwords, each with an end mark and padding."""
        path = self.folder / "data" / "multi30k" / f"translation-{split}.parquet"

        def make() -> np.ndarray:
            text = data.columns(self.folder, "multi30k", f"translation-{split}")
            out = np.full((len(text["en"]), 2, LONGEST), PAD, np.int64)
            for side, language in enumerate(("en", "de")):
                for i, coded in enumerate(self._tokenizer.encode_batch(text[language])):
                    ids = [*coded.ids[: LONGEST - 1], END]
                    out[i, side, : len(ids)] = ids
            return out

        return data.kept(f"multi30k-{split}-{int(self.setting.shape['words'])}", path, make)


def batches(lengths: np.ndarray, batch: int, seed: int, epoch: int) -> np.ndarray:
    """The pairs of an epoch's batches ``[batches, batch]``: a permutation, sorted by length inside pools, the batches shuffled.

    ``lengths`` ``[pairs, 2]`` are those of source and target; pairs that do not fill a batch are left out of their epoch.
    """
    order = epoch_order(len(lengths), seed, epoch)[: len(lengths) // batch * batch]
    rows = []
    for at in range(0, len(order), POOL * batch):
        pool = order[at : at + POOL * batch]
        rows.append(pool[np.lexsort(lengths[pool].T)].reshape(-1, batch))
    every = np.concatenate(rows)
    return every[np.random.default_rng([seed, epoch, 1]).permutation(len(every))]


def _trimmed(ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Rows of ids to ``[time, batch]`` without the padding that all share, and their lengths."""
    lengths = (ids != PAD).sum(1)
    return torch.from_numpy(np.ascontiguousarray(ids[:, : lengths.max()].T)), torch.from_numpy(lengths)


def _learned(lines: list[str], words: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    coder = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    coder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    coder.decoder = decoders.BPEDecoder(suffix="</w>")
    special = ["<pad>", "<begin>", "<end>", "<unk>"]
    coder.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=words, special_tokens=special, end_of_word_suffix="</w>",
                                                         show_progress=False))  # fmt: skip
    return coder
