"""Image classification on CIFAR-10: flips and shifted crops while training, top-1 accuracy in percent."""

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
from benchmarks.families.nets.mobilenet import MobileNet
from benchmarks.families.nets.resnet import ResNet
from benchmarks.families.order import shuffled
from benchmarks.families.setting import Setting

__all__ = ["Cifar", "normalised"]

HELD_OUT = 5_000  # of the training images, the last ones, for validation
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Cifar:
    """ResNet (width = channels of the first stage) or MobileNet (width = multiplier) on 32 x 32 images."""

    metric, better = "top-1 %", "higher"

    def __init__(self, setting: Setting, folder: Path):
        self.setting, self.folder = setting, folder
        self.resnet = "depth" in setting.shape

    def widths(self) -> Sequence[float]:
        step = 1 if self.resnet else 1 / 128
        return [k * step for k in range(1, round(self.setting.width / step) + 1)]

    def build(self, width: float) -> nn.Module:
        if self.resnet:
            return ResNet(int(self.setting.shape["depth"]), int(width))
        return MobileNet(width, 10, stem_stride=1)

    def prepare(self) -> None:
        for split in ("train", "test"):
            data.images(self.folder, split)

    def start(self, model: nn.Module) -> Any:
        return None

    def loss(self, model: nn.Module, seed: int, step: int, carry: Any) -> tuple[Tensor, Any]:
        pixels, labels = self._train
        index = np.sort(shuffled(len(labels), self.setting.batch, seed, step))  # sorted: kinder to a mapped file
        x = _augmented(normalised(pixels[index]))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.setting.bfloat16):
            logits = model(x)
        return F.cross_entropy(logits.float(), torch.from_numpy(labels[index]), label_smoothing=self.setting.smoothing), None

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> float:
        pixels, labels = self._held_out if split == "validation" else data.images(self.folder, "test")
        right = 0
        for at in range(0, len(labels), 500):
            found = model(normalised(pixels[at : at + 500])).argmax(1)
            right += int((found == torch.from_numpy(np.array(labels[at : at + 500]))).sum())
        return 100 * right / len(labels)

    @cached_property
    def _train(self) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = data.images(self.folder, "train")
        return pixels[:-HELD_OUT], labels[:-HELD_OUT]

    @cached_property
    def _held_out(self) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = data.images(self.folder, "train")
        return pixels[-HELD_OUT:], labels[-HELD_OUT:]


def normalised(pixels: np.ndarray) -> Tensor:
    """Bytes ``[N, 3, 32, 32]`` to floats with the channels' usual mean and deviation taken out."""
    return (torch.from_numpy(np.array(pixels)).float() / 255 - MEAN) / STD


def _augmented(x: Tensor) -> Tensor:
    """Every image mirrored or not and shifted by up to four pixels (zeros come in), drawn from the global random state."""
    n, side = x.shape[0], x.shape[-1]
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(-1), x)
    shift = torch.randint(0, 9, (2, n, 1))
    rows, across = shift[0] + torch.arange(side), shift[1] + torch.arange(side)
    padded = F.pad(x, (4, 4, 4, 4))
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], across[:, None, :]].permute(0, 3, 1, 2).contiguous()
