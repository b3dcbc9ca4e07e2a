"""Networks from images to images and maps, small."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.nets.layers import ConvNorm

__all__ = ["ASPP", "FPN", "HRNet", "SubPixel", "UNet", "autoencoder"]


class UNet(nn.Module):
    """``[N, 3, H, W]`` to ``[N, classes, H, W]``, H and W multiples of 4 (Ronneberger et al. 2015); ``groups`` of its norms."""

    def __init__(self, width: int = 8, classes: int = 4, groups: int = 0):
        super().__init__()
        self.groups = groups
        self.down1, self.down2 = self.twice(3, width), self.twice(width, 2 * width)
        self.low = self.twice(2 * width, 4 * width)
        self.raise2, self.raise1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.up2, self.up1 = self.twice(4 * width, 2 * width), self.twice(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def twice(self, inputs: int, outputs: int) -> nn.Sequential:
        """Two convolutions with group or batch norm."""
        def norm() -> nn.Module:
            return nn.GroupNorm(self.groups, outputs) if self.groups else nn.BatchNorm2d(outputs)

        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), norm(), nn.ReLU(),
                             nn.Conv2d(outputs, outputs, 3, padding=1), norm(), nn.ReLU())  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.raise2(self.low(F.max_pool2d(second, 2)))
        x = self.raise1(self.up2(torch.cat([second, x], 1)))
        return self.head(self.up1(torch.cat([first, x], 1)))


class FPN(nn.Module):
    """Three levels of features, each a lateral convolution plus the level above enlarged (Lin et al. 2017)."""

    def __init__(self, width: int = 8, classes: int = 4):
        super().__init__()
        self.stem = ConvNorm(3, width, 3, 2)
        self.stages = nn.ModuleList([ConvNorm(width, 2 * width, 3, 2), ConvNorm(2 * width, 4 * width, 3, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(c, 2 * width, 1) for c in (width, 2 * width, 4 * width))
        self.smooth = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(3))
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        tops = [self.lateral[-1](found[-1])]
        for lateral, features in zip(list(self.lateral)[-2::-1], found[-2::-1], strict=True):
            tops.append(lateral(features) + F.interpolate(tops[-1], scale_factor=2.0, mode="nearest"))
        return tuple(self.head(F.relu(smooth(top))) for smooth, top in zip(self.smooth, tops, strict=True))


class SubPixel(nn.Module):
    """Super-resolution by pixel shuffle (Shi et al. 2016): ``[N, 3, H, W]`` to ``[N, 3, 4H, 4W]``."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.head = nn.Conv2d(3, width, 5, padding=2)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width), nn.Conv2d(width, width, 3, padding=1))
        self.up1, self.up2 = nn.Conv2d(width, 4 * width, 3, padding=1), nn.Conv2d(width, 4 * width, 3, padding=1)
        self.tail, self.shuffle = nn.Conv2d(width, 3, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.head(x))
        x = x + self.body(x)
        return self.tail(F.relu(self.shuffle(self.up2(F.relu(self.shuffle(self.up1(x)))))))


class ASPP(nn.Module):
    """Dilated convolutions side by side with a pooled branch that is enlarged again (Chen et al. 2017)."""

    def __init__(self, width: int = 16, classes: int = 4):
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, width, 3, 2), ConvNorm(width, width, 3, 2))
        self.branches = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 3))
        self.pooled, self.project = nn.Conv2d(width, width, 1), ConvNorm(4 * width, 2 * width, 1)
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        x = self.stem(x)
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        x = self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))
        return F.interpolate(self.head(x), size, mode="bilinear")


class HRNet(nn.Module):
    """Two resolutions side by side that exchange sums (Wang et al. 2020)."""

    def __init__(self, width: int = 8, classes: int = 10):
        super().__init__()
        self.stem, self.lower = ConvNorm(3, width), ConvNorm(width, 2 * width, 3, 2)
        self.high = nn.ModuleList(ConvNorm(width, width) for _ in range(2))
        self.low = nn.ModuleList(ConvNorm(2 * width, 2 * width) for _ in range(2))
        self.down = nn.ModuleList(ConvNorm(width, 2 * width, 3, 2, act=None) for _ in range(2))
        self.up = nn.ModuleList(ConvNorm(2 * width, width, 1, act=None) for _ in range(2))
        self.head = nn.Linear(3 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        high = self.stem(x)
        low = self.lower(high)
        for i in range(2):
            high, low = self.high[i](high), self.low[i](low)
            raised = F.interpolate(self.up[i](low), scale_factor=2.0, mode="nearest")
            high, low = F.relu(high + raised), F.relu(low + self.down[i](high))
        return self.head(torch.cat([high.mean((2, 3)), low.mean((2, 3))], 1))


def autoencoder(width: int = 8, norm: type[nn.Module] = nn.InstanceNorm2d) -> nn.Sequential:
    """Strided convolutions down, transposed ones up, ``norm(channels, affine=True)`` between."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, width), (width, 2 * width)):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), norm(outputs, affine=True), nn.LeakyReLU(0.1)]
    for inputs, outputs in ((2 * width, width), (width, 3)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)]
        layers += [norm(outputs, affine=True), nn.LeakyReLU(0.1)] if outputs != 3 else [nn.Tanh()]
    return nn.Sequential(*layers)
