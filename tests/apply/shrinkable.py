"""Small networks whose structure can be removed, and what may stay of them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Pair(nn.Module):
    """Convolution, batch norm, convolution, linear: one group inside, one towards the head."""

    def __init__(self, inner=6):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, inner, 3, padding=1), nn.BatchNorm2d(inner)
        self.second, self.head = nn.Conv2d(inner, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x))))).mean((2, 3)))


class UNet(nn.Module):
    """A skip by concatenation around a strided and a transposed convolution, with a group norm."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.up, self.out = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        high = self.down(x)
        return self.out(torch.cat([self.up(self.deep(high)), high], 1))


class OptionA(nn.Module):
    """A shortcut padded with zero channels, as in the ResNets for CIFAR; the padding is a literal of the code."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.b(F.relu(self.a(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """A depthwise and a grouped convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped, self.head = nn.Conv2d(16, 8, 1, groups=4), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(F.relu(self.grouped(F.relu(self.deep(self.stem(x))))))


class Attention(nn.Module):
    """Fused query, key and value, and a scale that is read off the width of a head at every call."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, length, _ = x.shape
        fused = self.qkv(self.norm(x)).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, v = fused.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, -1)
        return x + self.out(mixed)


class Vision(nn.Module):
    """Patches, a class token, positions, two blocks of attention."""

    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.randn(1, 1, 12))
        self.places = nn.Parameter(torch.randn(1, 5, 12))
        self.blocks, self.head = nn.Sequential(Attention(), Attention()), nn.Linear(12, 4)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.blocks(x)[:, 0])


class Tagger(nn.Module):
    """A recurrent network over words."""

    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.words, self.net = nn.Embedding(11, 6), kind(6, 5, 2, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(10, 3)

    def forward(self, words):
        return self.tags(self.net(self.words(words))[0])


class Tied(nn.Module):
    """An RMS norm over the residual width, and an output layer that is the embedding."""

    def __init__(self):
        super().__init__()
        self.words, self.norm = nn.Embedding(11, 8), nn.RMSNorm(8, eps=1e-3)
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 8)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.words.weight

    def forward(self, words):
        x = self.words(words)
        return self.out(self.norm(x + self.down(F.silu(self.up(self.norm(x))))))


def llama(**settings):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 32, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 6,
             "num_key_value_heads": 3, "max_position_embeddings": 16, "head_dim": 4}  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **settings}))


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"vocab_size": 32, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertForSequenceClassification(BertConfig(**sizes))


def keep(graph, *kinds, drop=1, seed=0):
    """What stays when ``drop`` random indices of every group leave, or of those of ``kinds``."""
    generator = torch.Generator().manual_seed(seed)
    groups = [g for g in graph.prunable() if g.size > drop and (not kinds or g.kind in kinds)]
    return {g.name: torch.randperm(g.size, generator=generator)[: g.size - drop].sort().values for g in groups}
