"""MobileNetV1 (Howard et al. 2017, table 1) with its width multiplier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MobileNet"]

# (channels, stride) of every block
_PLAN = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNet(nn.Module):
    """``[N, 3, H, W]`` to ``[N, classes]``; every channel count is multiplied by ``width`` and rounded.

    ``stem_stride`` is 2 for 224-pixel images; 1 keeps 32-pixel images at full resolution in the first layer.
    """

    def __init__(self, width: float = 1.0, classes: int = 1000, stem_stride: int = 2):
        super().__init__()
        channels = _scaled(32, width)
        self.stem = _normed(nn.Conv2d(3, channels, 3, stem_stride, 1, bias=False))
        blocks = []
        for full, stride in _PLAN:
            outputs = _scaled(full, width)
            depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
            pointwise = nn.Conv2d(channels, outputs, 1, bias=False)
            blocks.append(nn.Sequential(_normed(depthwise), _normed(pointwise)))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.mean(self.blocks(self.stem(x)), (2, 3)))


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))
