"""Small networks whose groups a reader can list."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolutions() -> nn.Module:
    """Channels 4 and 6 between an image of 3 channels and 5 classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    ).eval()  # fmt: skip


class Residual(nn.Module):
    """A stream of 8 channels that a block of 12 reads and writes, beside a depthwise layer and one of two groups."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.widen, self.narrow = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.narrow(self.depthwise(self.widen(x)).relu())
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Four heads of 2 over a stream of 6, then neurons: heads, head dimensions, neurons and width."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (layer(x).view(batch, tokens, 4, 2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, tokens, 8))
        return self.out(x + self.down(self.up(x).relu()))


class Tagger(nn.Module):
    """A two-layer LSTM, both ways: four groups whose counts are tied."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.lstm(self.words(ids))[0])


IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
SEQUENCES = torch.linspace(-1, 1, 2 * 5 * 6).view(2, 5, 6)
WORDS = torch.arange(10).view(2, 5) % 9

NETS = {
    "convolutions": (convolutions, IMAGES),
    "residual": (Residual, IMAGES),
    "attention": (Attention, SEQUENCES),
    "tagger": (Tagger, WORDS),
}
