"""An encoder-decoder of LSTM layers with attention, in the arrangement of GNMT (Wu et al. 2016) that the paper prunes.

The first encoder layer is bidirectional. Every decoder layer is fed a context beside its input: the lowest the mean of the
source, so that all steps of a known target run at once, the upper ones what the attention finds for the lowest one's outputs.
With h = 256, 512, 768, 1024, four layers a side and 36,548 words this counts 34.2, 80.8, 139.7 and 210.9 M parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Source", "Translator"]

States = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Source:
    """Values and keys ``[batch, time, h]``, the mean of the values ``[batch, h]``, a penalty ``[batch, time]`` on padding."""

    values: Tensor
    keys: Tensor
    mean: Tensor
    penalty: Tensor


class Attention(nn.Module):
    """Products of queries and keys, each through an h x h kernel of its own (Luong et al. 2015, "general", in two factors)."""

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.memory = nn.Linear(width, width, bias=False)

    def forward(self, query: Tensor, source: Source) -> Tensor:
        """Contexts ``[time, batch, h]`` for queries ``[time, batch, h]``."""
        scores = torch.bmm(self.query(query).transpose(0, 1), source.keys.transpose(1, 2)) + source.penalty[:, None]
        return torch.bmm(torch.softmax(scores, -1).to(source.values.dtype), source.values).transpose(0, 1)


class Encoder(nn.Module):
    """Token embeddings ``[time, batch, h]`` to values ``[time, batch, h]``; what stands at padding is never looked at."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.forwards = nn.LSTM(width, width)
        self.backwards = nn.LSTM(width, width)
        self.upper = nn.ModuleList(nn.LSTM(width if i else 2 * width, width) for i in range(layers - 1))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        words, turned = x, _turned(x.shape[0], lengths)[..., None]
        back = self.backwards(_gather(x, turned))[0]
        x = torch.cat([self.forwards(x)[0], _gather(back, turned)], -1)
        for i, layer in enumerate(self.upper):
            x = layer(x)[0] + (x if i else words)  # a residual of the width at hand: below the second layer that is the words
        return x


class Decoder(nn.Module):
    """Target embeddings ``[time, batch, h]`` to outputs of that shape; what is looked at also reaches them by a plain sum."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.width = width
        self.attention = Attention(width)
        self.layers = nn.ModuleList(nn.LSTM(2 * width, width) for _ in range(layers))

    def start(self, batch: int) -> States:
        """Zero states, a pair of ``[1, batch, h]`` a layer."""
        zero = torch.zeros(1, batch, self.width)
        return [(zero, zero) for _ in self.layers]

    def forward(self, x: Tensor, source: Source, states: States) -> tuple[Tensor, States]:
        after, seen = [], source.mean[None].expand_as(x)
        for i, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            y, state = layer(torch.cat([x, seen.to(x.dtype)], -1), state)
            x = y + (x if i else 0)
            seen = seen if i else self.attention(x, source)
            after.append(state)
        return x + seen, after


class Translator(nn.Module):
    """Token ids ``[time, batch]`` on both sides to logits ``[time, batch, words]``."""

    def __init__(self, width: int = 128, words: int = 4_000, layers: int = 2, dropout: float = 0.0):
        super().__init__()
        self.source_embedding = nn.Embedding(words, width)
        self.target_embedding = nn.Embedding(words, width)
        self.encoder = Encoder(width, layers)
        self.decoder = Decoder(width, layers)
        self.softmax = nn.Linear(width, words, bias=False)
        self.dropout = nn.Dropout(dropout)
        for table in (self.source_embedding, self.target_embedding):
            nn.init.normal_(table.weight, std=width**-0.5)

    def encode(self, source: Tensor, lengths: Tensor) -> Source:
        """Source ids ``[time, batch]`` whose first ``lengths`` entries count."""
        values = self.encoder(self.dropout(self.source_embedding(source)), lengths).transpose(0, 1)
        hidden = torch.arange(source.shape[0])[None] >= lengths[:, None]
        mean = values.masked_fill(hidden[..., None], 0).sum(1) / lengths[:, None]
        return Source(values, self.decoder.attention.memory(values), mean, hidden * -1e4)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        memory = self.encode(source, lengths)
        x = self.dropout(self.target_embedding(target))
        hidden, _ = self.decoder(x, memory, self.decoder.start(target.shape[1]))
        return self.softmax(self.dropout(hidden))

    @torch.no_grad()
    def greedy(self, source: Tensor, lengths: Tensor, begin: int, end: int, most: int) -> Tensor:
        """Most likely next tokens, step by step: ``[steps, batch]`` ids; what stands behind ``end`` is meaningless."""
        memory, batch = self.encode(source, lengths), source.shape[1]
        states, token, found = self.decoder.start(batch), torch.full((batch,), begin), []
        done = torch.zeros(batch, dtype=torch.bool)
        for _ in range(most):
            hidden, states = self.decoder(self.target_embedding(token)[None], memory, states)
            token = self.softmax(hidden[0]).argmax(-1)
            found.append(token)
            done |= token == end
            if done.all():
                break
        return torch.stack(found)


def _turned(time: int, lengths: Tensor) -> Tensor:
    """Index ``[time, batch]`` that reverses the first ``lengths`` entries of each column and leaves the rest."""
    at = torch.arange(time)[:, None]
    return torch.where(at < lengths[None], lengths[None] - 1 - at, at)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    return torch.gather(x, 0, index.expand_as(x))
