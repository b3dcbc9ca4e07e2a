"""Networks of attention and token mixing, small; images are ``[N, 3, 32, 32]``, words ``[N, time]``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.nets.layers import Sum

__all__ = ["Encoder", "GroupedQuery", "Mixer", "Swin", "ViT", "convnext"]


def mlp(width: int, inner: int) -> nn.Sequential:
    """Norm, linear, GELU, linear."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class FusedAttention(nn.Module):
    """Norm, then attention whose queries, keys and values come from one linear layer, viewed as ``3 x heads x d``."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.inner = heads, width
        self.norm, self.qkv, self.project = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, -1))


class ViT(nn.Module):
    """Patches, a class token, positions, fused attention (Dosovitskiy et al. 2021); ``scale`` of the branches if given."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2, classes: int = 10):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        self.scales = nn.ParameterList(nn.Parameter(torch.rand(width)) for _ in range(depth))
        self.attend = nn.ModuleList(FusedAttention(width, heads) for _ in range(depth))
        self.think = nn.ModuleList(mlp(width, 2 * width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for attend, think, scale in zip(self.attend, self.think, self.scales, strict=True):
            x = x + attend(x)
            x = x + scale * think(x)
        return self.head(self.norm(x)[:, 0])


class Window(nn.Module):
    """Attention inside 4x4 windows with a table of relative positions, on a map ``[N, H, W, C]``, shifted or not."""

    def __init__(self, width: int, heads: int, shift: int, side: int = 4):
        super().__init__()
        self.heads, self.shift, self.side = heads, shift, side
        self.norm, self.qkv, self.project = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(0.1 * torch.randn((2 * side - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None, :] + side - 1
        self.register_buffer("index", (apart[0] * (2 * side - 1) + apart[1]).flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        s = self.side
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2)) if self.shift else self.norm(x)
        y = y.view(n, height // s, s, width // s, s, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, channels)
        q, k, v = self.qkv(y).reshape(y.shape[0], s * s, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index].view(s * s, s * s, self.heads).permute(2, 0, 1)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (channels // self.heads) ** -0.5 + bias, -1)
        y = self.project((weights @ v).transpose(1, 2).reshape(y.shape[0], s * s, -1))
        y = y.view(n, height // s, width // s, s, s, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, height, width, -1)
        return x + (torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y)


class Merge(nn.Module):
    """Four neighbours' channels side by side, normed and halved: ``[N, H, W, C]`` to ``[N, H/2, W/2, 2C]``."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        quarters = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduce(self.norm(torch.cat(quarters, -1)))


class Swin(nn.Module):
    """Shifted windows and patch merging (Liu et al. 2021), without the mask at the border of a shift."""

    def __init__(self, width: int = 16, heads: int = 2, classes: int = 10):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 2, 2)
        self.stages = nn.Sequential(Window(width, heads, 0), Sum(mlp(width, 2 * width)), Window(width, heads, 2),
                                    Sum(mlp(width, 2 * width)), Merge(width), Window(2 * width, 2 * heads, 0),
                                    Sum(mlp(2 * width, 4 * width)))  # fmt: skip
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean((1, 2)))


class Mixer(nn.Module):
    """Linear layers over tokens and over channels in turn (Tolstikhin et al. 2021)."""

    def __init__(self, width: int = 32, tokens: int = 16, depth: int = 2, classes: int = 10):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.tokens = nn.ModuleList(mlp(tokens, 2 * tokens) for _ in range(depth))
        self.channels = nn.ModuleList(mlp(width, 2 * width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for tokens, channels in zip(self.tokens, self.channels, strict=True):
            x = x + tokens(x.transpose(1, 2)).transpose(1, 2)
            x = x + channels(x)
        return self.head(self.norm(x).mean(1))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, then norm and linear layers with the channels last, a learned scale, the sum (Liu et al. 2022)."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise, self.think = nn.Conv2d(width, width, 7, padding=3, groups=width), mlp(width, 4 * width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.scale * self.think(self.depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def convnext(width: int = 16, classes: int = 10) -> nn.Sequential:
    """Two stages of two blocks."""
    first, second = ([ConvNeXtBlock(w) for _ in range(2)] for w in (width, 2 * width))
    return nn.Sequential(nn.Conv2d(3, width, 4, 4), *first, nn.Conv2d(width, 2 * width, 2, 2), *second,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(2 * width),
                         nn.Linear(2 * width, classes))  # fmt: skip


class Encoder(nn.Module):
    """PyTorch's own encoder layers on word embeddings; word ids to a class."""

    def __init__(self, width: int = 32, heads: int = 4, words: int = 96, norm_first: bool = False, classes: int = 5):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(words)).mean(1))


class GroupedQuery(nn.Module):
    """A decoder: RMS norms, rotated pairs, four query heads over two of keys and values, a gated MLP, a tied output layer."""

    def __init__(self, width: int = 32, heads: int = 4, shared: int = 2, words: int = 96):
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.embedding = nn.Embedding(words, width)
        self.norm1, self.norm2, self.norm3 = nn.RMSNorm(width), nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * self.size, bias=False) for _ in range(2))
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def rotated(self, x: Tensor) -> Tensor:
        """``[N, heads, time, d]`` turned by position, pairs (i, i + d/2)."""
        half = self.size // 2
        angle = torch.arange(x.shape[2])[:, None] * 10_000 ** (-torch.arange(half) / half)
        left, right = x[..., :half], x[..., half:]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words)
        n, time, _ = x.shape
        y = self.norm1(x)
        q = self.rotated(self.q(y).view(n, time, self.heads, self.size).transpose(1, 2))
        k = self.rotated(self.k(y).view(n, time, self.shared, self.size).transpose(1, 2))
        v = self.v(y).view(n, time, self.shared, self.size).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.shared, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, time, -1)
        x = x + self.o(y)
        y = self.norm2(x)
        return self.head(self.norm3(x + self.down(F.silu(self.gate(y)) * self.up(y))))
