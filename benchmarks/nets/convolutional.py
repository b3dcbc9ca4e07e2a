"""Convolutional classifiers by the shape of their wiring, small: ``[N, 3, 32, 32]`` to ``[N, classes]``."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.nets.layers import Classifier, ConvNorm, Gate, Sum

__all__ = ["VGG", "DenseNet", "Inception", "SqueezeNet", "googlenet", "preact_resnet", "regnet", "residual", "se_resnet"]


class VGG(nn.Module):
    """Plain 3x3 convolutions and pooling, then linear layers on the flattened map (Simonyan & Zisserman 2015)."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 32), norm: bool = True, classes: int = 10):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((3, *widths)):
            layers += [ConvNorm(inputs, outputs)] if norm else [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        pixels = (32 >> len(widths)) ** 2
        self.classifier = nn.Sequential(nn.Linear(widths[-1] * pixels, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def residual(width: int = 16, groups: int = 1, bottleneck: bool = True, blocks: int = 2, expansion: int = 2) -> Classifier:
    """A ResNet with projection shortcuts (option B); ``groups`` above 1 is ResNeXt, a large ``width`` WideResNet."""
    inputs, layers = width, [ConvNorm(3, width)]
    for stage in range(3):
        inner = width << stage
        outputs = inner * expansion if bottleneck else inner
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            branch = _bottleneck(inputs, inner, outputs, stride, groups) if bottleneck else _basic(inputs, outputs, stride)
            project = ConvNorm(inputs, outputs, 1, stride, act=None) if stride > 1 or inputs != outputs else None
            layers.append(Sum(branch, project, nn.ReLU()))
            inputs = outputs
    return Classifier(nn.Sequential(*layers), inputs)


def se_resnet(width: int = 16) -> Classifier:
    """Basic residual blocks whose branches end in squeeze and excitation."""
    blocks = [Sum(nn.Sequential(_basic(width, width, 1), Gate(width, width // 4)), None, nn.ReLU()) for _ in range(3)]
    return Classifier(nn.Sequential(ConvNorm(3, width), *blocks), width)


def preact_resnet(width: int = 16) -> Classifier:
    """Norm and activation before every convolution (He et al. 2016b): the residual sum itself is never normalised."""

    def half(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False))

    blocks = [Sum(nn.Sequential(half(width), half(width))) for _ in range(3)]
    return Classifier(nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *blocks, nn.BatchNorm2d(width), nn.ReLU()), width)


def regnet(widths: tuple[int, ...] = (16, 32, 48), group_width: int = 8) -> Classifier:
    """RegNetY (Radosavovic et al. 2020): grouped 3x3 convolutions of full width, with excitation."""
    layers: list[nn.Module] = [ConvNorm(3, widths[0])]
    for inputs, outputs in pairwise((widths[0], *widths)):
        branch = nn.Sequential(ConvNorm(inputs, outputs, 1), ConvNorm(outputs, outputs, 3, 2, outputs // group_width),
                               Gate(outputs, inputs // 4), ConvNorm(outputs, outputs, 1, act=None))  # fmt: skip
        layers.append(Sum(branch, ConvNorm(inputs, outputs, 1, 2, act=None), nn.ReLU()))
    return Classifier(nn.Sequential(*layers), widths[-1])


class DenseNet(nn.Module):
    """Every layer reads all before it (Huang et al. 2017); transitions halve the channels."""

    def __init__(self, growth: int = 8, layers: int = 3, blocks: int = 3, classes: int = 10):
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for block in range(blocks):
            self.blocks.append(nn.ModuleList(_dense_layer(channels + i * growth, growth) for i in range(layers)))
            channels += layers * growth
            if block < blocks - 1:
                halve = nn.Conv2d(channels, channels // 2, 1)
                self.transitions.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), halve))
                channels //= 2
        self.norm, self.head = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            found = [x]
            for layer in block:  # type: ignore[attr-defined]
                found.append(layer(torch.cat(found, 1)))
            x = torch.cat(found, 1)
            if i < len(self.transitions):
                x = F.avg_pool2d(self.transitions[i](x), 2)
        return self.head(F.relu(self.norm(x)).mean((2, 3)))


class SqueezeNet(nn.Module):
    """Fire modules (Iandola et al. 2016): one narrow layer read by two, side by side; a convolution gives the classes."""

    def __init__(self, width: int = 16, classes: int = 10):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.squeezes = nn.ModuleList([nn.Conv2d(width, width // 2, 1), nn.Conv2d(2 * width, width // 2, 1)])
        self.narrow = nn.ModuleList(nn.Conv2d(width // 2, width, 1) for _ in range(2))
        self.wide = nn.ModuleList(nn.Conv2d(width // 2, width, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for squeeze, one, three in zip(self.squeezes, self.narrow, self.wide, strict=True):
            x = F.relu(squeeze(x))
            x = F.max_pool2d(torch.cat([F.relu(one(x)), F.relu(three(x))], 1), 2)
        return F.relu(self.head(x)).mean((2, 3))


class Mix(nn.Module):
    """Branches side by side, concatenated; the last reads the pooled input."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        found = [branch(x) for branch in self.branches[:-1]]
        return torch.cat([*found, self.branches[-1](F.avg_pool2d(x, 3, 1, 1))], 1)


def googlenet(width: int = 8) -> Classifier:
    """1x1, 3x3, 5x5 and pooled branches (Szegedy et al. 2015)."""

    def mix(inputs: int) -> Mix:
        three = nn.Sequential(ConvNorm(inputs, width, 1), ConvNorm(width, 2 * width))
        five = nn.Sequential(ConvNorm(inputs, width, 1), ConvNorm(width, width, 5))
        return Mix(ConvNorm(inputs, 2 * width, 1), three, five, ConvNorm(inputs, width, 1))

    return Classifier(nn.Sequential(ConvNorm(3, 2 * width), mix(2 * width), nn.MaxPool2d(2), mix(6 * width)), 6 * width)


class Inception(nn.Module):
    """Factorised 1x7 and 7x1 kernels, branches of branches (Szegedy et al. 2016)."""

    def __init__(self, width: int = 8, classes: int = 10):
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 2 * width, 3, 2), ConvNorm(2 * width, 4 * width))
        tall = nn.Sequential(ConvNorm(4 * width, width, 1), ConvNorm(width, width, (1, 7)), ConvNorm(width, width, (7, 1)))
        self.mix = Mix(ConvNorm(4 * width, width, 1), tall, ConvNorm(4 * width, width, 1))
        self.before = ConvNorm(3 * width, 2 * width, 1)
        self.across, self.down = ConvNorm(2 * width, width, (1, 3)), ConvNorm(2 * width, width, (3, 1))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.mix(self.stem(x)))
        return self.head(torch.cat([self.across(x), self.down(x)], 1).mean((2, 3)))


def _basic(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(inputs, outputs, 3, stride), ConvNorm(outputs, outputs, act=None))


def _bottleneck(inputs: int, inner: int, outputs: int, stride: int, groups: int) -> nn.Sequential:
    middle = ConvNorm(inner, inner, 3, stride, groups)
    return nn.Sequential(ConvNorm(inputs, inner, 1), middle, ConvNorm(inner, outputs, 1, act=None))


def _dense_layer(inputs: int, growth: int) -> nn.Sequential:
    narrow = (nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 2 * growth, 1, bias=False))
    return nn.Sequential(*narrow, nn.BatchNorm2d(2 * growth), nn.ReLU(), nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False))
