"""Classifiers of depthwise convolutions, small: ``[N, 3, 32, 32]`` to ``[N, classes]``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.nets.layers import Classifier, ConvNorm, Gate, Sum

__all__ = ["efficientnet", "ghostnet", "inverted", "mnasnet", "mobilenet_v2", "mobilenet_v3", "shufflenet_v1", "shufflenet_v2"]


def inverted(inputs: int, outputs: int, expand: int, stride: int, act: type[nn.Module] = nn.ReLU6, kernel: int = 3,
             gate: type[nn.Module] | None = None) -> nn.Module:  # fmt: skip
    """An inverted residual block (Sandler et al. 2018): widen, depthwise, gate, narrow; a shortcut where shapes allow."""
    inner = inputs * expand
    layers: list[nn.Module] = [ConvNorm(inputs, inner, 1, act=act)] if expand > 1 else []
    layers.append(ConvNorm(inner, inner, kernel, stride, inner, act))
    layers += [Gate(inner, max(4, inner // 4), gate)] if gate else []
    branch = nn.Sequential(*layers, ConvNorm(inner, outputs, 1, act=None))
    return Sum(branch) if stride == 1 and inputs == outputs else branch


def mobilenet_v2(width: int = 8) -> Classifier:
    """Sandler et al. 2018."""
    body = nn.Sequential(ConvNorm(3, width, act=nn.ReLU6), inverted(width, width, 1, 1), inverted(width, 2 * width, 6, 2),
                         inverted(2 * width, 2 * width, 6, 1), inverted(2 * width, 3 * width, 6, 2),
                         inverted(3 * width, 3 * width, 6, 1), ConvNorm(3 * width, 8 * width, 1, act=nn.ReLU6))  # fmt: skip
    return Classifier(body, 8 * width)


def mobilenet_v3(width: int = 8) -> Classifier:
    """Howard et al. 2019: hard swish, excitation with a hard sigmoid, 5x5 kernels."""
    hard: type[nn.Module] = nn.Hardswish
    body = nn.Sequential(ConvNorm(3, width, 3, 2, act=hard), inverted(width, width, 1, 1, nn.ReLU, gate=nn.Hardsigmoid),
                         inverted(width, 2 * width, 4, 2, hard, 5, nn.Hardsigmoid),
                         inverted(2 * width, 2 * width, 4, 1, hard, 5, nn.Hardsigmoid),
                         ConvNorm(2 * width, 8 * width, 1, act=hard))  # fmt: skip
    return Classifier(body, 8 * width)


def efficientnet(width: int = 8) -> Classifier:
    """Tan & Le 2019: swish and excitation everywhere."""
    swish: type[nn.Module] = nn.SiLU
    body = nn.Sequential(ConvNorm(3, width, 3, 2, act=swish), inverted(width, width, 1, 1, swish, gate=nn.Sigmoid),
                         inverted(width, 2 * width, 6, 2, swish, gate=nn.Sigmoid),
                         inverted(2 * width, 2 * width, 6, 1, swish, 5, nn.Sigmoid),
                         ConvNorm(2 * width, 8 * width, 1, act=swish))  # fmt: skip
    return Classifier(body, 8 * width)


def mnasnet(width: int = 8) -> Classifier:
    """Tan et al. 2019: blocks with and without excitation."""
    body = nn.Sequential(ConvNorm(3, width), inverted(width, width, 3, 1, nn.ReLU),
                         inverted(width, 2 * width, 6, 2, nn.ReLU, 5),
                         inverted(2 * width, 2 * width, 6, 1, nn.ReLU, 5, nn.Sigmoid))  # fmt: skip
    return Classifier(body, 2 * width)


class Ghost(nn.Module):
    """Half the channels computed, the other half derived from them by a depthwise convolution (Han et al. 2020)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.primary = ConvNorm(inputs, outputs // 2, 1)
        self.cheap = ConvNorm(outputs // 2, outputs // 2, 3, groups=outputs // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)


def ghostnet(width: int = 16) -> Classifier:
    """Residual blocks of ghost modules."""
    blocks = [Sum(nn.Sequential(Ghost(width, 4 * width), Ghost(4 * width, width))) for _ in range(2)]
    return Classifier(nn.Sequential(ConvNorm(3, width), *blocks, nn.MaxPool2d(2), Ghost(width, 2 * width)), 2 * width)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels dealt out: view ``groups x c``, transpose, flatten."""
    n, channels, height, width = x.shape
    return x.view(n, groups, channels // groups, height, width).transpose(1, 2).reshape(n, channels, height, width)


class Shuffle(nn.Module):
    """A unit of ShuffleNetV2 (Ma et al. 2018): split, one half through convolutions, concatenate, shuffle."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        depthwise = ConvNorm(half, half, groups=half, act=None)
        self.branch = nn.Sequential(ConvNorm(half, half, 1), depthwise, ConvNorm(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return shuffled(torch.cat([left, self.branch(right)], 1), 2)


class ShuffleDown(nn.Module):
    """The unit with stride 2: both halves read everything."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(ConvNorm(inputs, inputs, 3, 2, inputs, None), ConvNorm(inputs, half, 1))
        self.right = nn.Sequential(ConvNorm(inputs, half, 1), ConvNorm(half, half, 3, 2, half, None), ConvNorm(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        return shuffled(torch.cat([self.left(x), self.right(x)], 1), 2)


def shufflenet_v2(width: int = 16) -> Classifier:
    """Two stages of two units."""
    body = nn.Sequential(ConvNorm(3, width), ShuffleDown(width, 2 * width), Shuffle(2 * width),
                         ShuffleDown(2 * width, 4 * width), Shuffle(4 * width), ConvNorm(4 * width, 6 * width, 1))  # fmt: skip
    return Classifier(body, 6 * width)


class ShuffleV1(nn.Module):
    """Grouped 1x1 convolutions with a shuffle between them (Zhang et al. 2018)."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.first = ConvNorm(channels, channels, 1, groups=groups)
        self.second = ConvNorm(channels, channels, 3, groups=channels, act=None)
        self.third = ConvNorm(channels, channels, 1, groups=groups, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.third(self.second(shuffled(self.first(x), self.groups))))


def shufflenet_v1(width: int = 24, groups: int = 3) -> Classifier:
    """Two units of stride 1."""
    return Classifier(nn.Sequential(ConvNorm(3, width, 3, 2), ShuffleV1(width, groups), ShuffleV1(width, groups)), width)
