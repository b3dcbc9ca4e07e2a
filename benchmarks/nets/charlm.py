"""A decoder of characters, small enough to train many: fused causal attention and an MLP of four times the width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CharLM"]


class Block(nn.Module):
    """Norm, attention, sum; norm, MLP, sum. Its linear layers hold 12 width^2 weights."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, time, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, time, width)
        x = x + self.project(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharLM(nn.Module):
    """Character ids ``[n, time]`` to logits ``[n, time, characters]``; at most ``length`` at a time."""

    def __init__(self, width: int = 96, characters: int = 64, length: int = 64, layers: int = 2, heads: int = 4):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
