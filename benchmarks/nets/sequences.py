"""Networks over sequences without attention, small; words are ``[N, time]``, signals ``[N, channels, time]``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Tagger", "TemporalConv", "TextCNN"]


class Tagger(nn.Module):
    """Recurrent layers over word embeddings and a tag for every word: ``kind`` is ``nn.LSTM`` or ``nn.GRU``."""

    def __init__(
        self, kind: type[nn.LSTM] | type[nn.GRU] = nn.LSTM, width: int = 24, layers: int = 1, both: bool = False,
        words: int = 96, tags: int = 7,
    ):  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(words, 16)
        self.recurrent = kind(16, width, layers, batch_first=True, bidirectional=both)
        self.hidden, self.head = nn.Linear(width * (1 + both), 32), nn.Linear(32, tags)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.recurrent(self.embedding(words))[0])))


class TextCNN(nn.Module):
    """Convolutions of several widths over words, the greatest of each, concatenated (Kim 2014)."""

    def __init__(self, width: int = 16, words: int = 96, classes: int = 5):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, 2 * width, k, padding=k // 2) for k in (3, 5, 7))
        self.head = nn.Linear(6 * width, classes)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words).transpose(1, 2)
        return self.head(torch.cat([F.relu(conv(x)).amax(-1) for conv in self.convs], 1))


class TemporalConv(nn.Module):
    """Dilated causal convolutions gated by their other half (GLU), with residual sums, flattened at the end."""

    def __init__(self, inputs: int = 4, width: int = 16, time: int = 16, classes: int = 5):
        super().__init__()
        self.start = nn.Conv1d(inputs, width, 1)
        self.convs = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, dilation=d) for d in (1, 2))
        self.head = nn.Linear(width * time, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        for conv in self.convs:
            x = x + F.glu(conv(F.pad(x, (2 * conv.dilation[0], 0))), 1)  # type: ignore[operator, index]
        return self.head(x.flatten(1))
