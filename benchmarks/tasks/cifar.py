"""Image classification on CIFAR-10: networks by width, 45,000 / 5,000 / 10,000 images, flips and shifted crops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.nets.mobilenet import MobileNet
from benchmarks.nets.resnet import ResNet
from benchmarks.tasks.pictures import Pictures, pictures

__all__ = ["MEAN", "STD", "augmented", "data", "mobilenet", "resnet"]

HELD_OUT = 5_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHIFT = 4  # pixels


def resnet(depth: int = 8, width: float = 16) -> ResNet:
    """A CIFAR ResNet; ``width`` is the channels of its first stage."""
    return ResNet(depth, int(width))


def mobilenet(width: float = 1.0) -> MobileNet:
    """MobileNetV1 for 32-pixel images; ``width`` multiplies every channel count."""
    return MobileNet(width, 10, stem_stride=1)


def data() -> dict[str, Pictures]:
    """The splits; validation are the last 5,000 training images."""
    return pictures("cifar10", HELD_OUT, MEAN, STD)


def augmented(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Every image mirrored or not and shifted by up to four pixels (zeros come in), drawn from the global random state."""
    x, labels = batch
    n, side = x.shape[0], x.shape[-1]
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(-1), x)
    shift = torch.randint(0, 2 * SHIFT + 1, (2, n, 1))
    rows, across = shift[0] + torch.arange(side), shift[1] + torch.arange(side)
    padded = F.pad(x, (SHIFT,) * 4)
    moved = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], across[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous(), labels
