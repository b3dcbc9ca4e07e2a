"""The architectures in plain PyTorch: ``benchmarks.nets``, small."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.coverage.entry import Entry, shaken
from benchmarks.nets import attention, convolutional, maps, mobile, sequences
from benchmarks.nets.lenet import LeNet5Mini, LeNet300
from benchmarks.nets.mobilenet import MobileNet
from benchmarks.nets.resnet import ResNet

__all__ = ["found"]

Build = Callable[[], nn.Module]

_IMAGES: dict[str, Build] = {
    "resnet-20": lambda: ResNet(20),
    "resnet-56": lambda: ResNet(56),
    "resnet-20-projections": lambda: convolutional.residual(bottleneck=False, blocks=3),
    "resnet-56-projections": lambda: convolutional.residual(bottleneck=False, blocks=9),
    "resnet-bottleneck": lambda: convolutional.residual(expansion=4),
    "resnext": lambda: convolutional.residual(groups=4),
    "wide-resnet": lambda: convolutional.residual(48, bottleneck=False, blocks=1),
    "preact-resnet": convolutional.preact_resnet,
    "se-resnet": convolutional.se_resnet,
    "regnet": convolutional.regnet,
    "vgg": convolutional.VGG,
    "vgg-without-norm": lambda: convolutional.VGG(norm=False),
    "densenet": convolutional.DenseNet,
    "squeezenet": convolutional.SqueezeNet,
    "googlenet": convolutional.googlenet,
    "inception": convolutional.Inception,
    "mobilenet-v1": lambda: MobileNet(0.125, 10),
    "mobilenet-v2": mobile.mobilenet_v2,
    "mobilenet-v3": mobile.mobilenet_v3,
    "mnasnet": mobile.mnasnet,
    "efficientnet": mobile.efficientnet,
    "ghostnet": mobile.ghostnet,
    "shufflenet-v1": mobile.shufflenet_v1,
    "shufflenet-v2": mobile.shufflenet_v2,
    "unet": maps.UNet,
    "unet-group-norm": lambda: maps.UNet(groups=4),
    "fpn": maps.FPN,
    "sub-pixel": maps.SubPixel,
    "aspp": maps.ASPP,
    "hrnet": maps.HRNet,
    "autoencoder-instance-norm": maps.autoencoder,
    "autoencoder-batch-norm": lambda: maps.autoencoder(norm=nn.BatchNorm2d),
    "convnext": attention.convnext,
    "swin": attention.Swin,
    "vit": attention.ViT,
    "mixer": attention.Mixer,
}
_WORDS: dict[str, Build] = {
    "lstm-tagger": sequences.Tagger,
    "lstm-tagger-both-ways": lambda: sequences.Tagger(both=True, layers=2),
    "gru-tagger": lambda: sequences.Tagger(nn.GRU),
    "gru-tagger-both-ways": lambda: sequences.Tagger(nn.GRU, both=True),
    "text-cnn": sequences.TextCNN,
    "encoder": attention.Encoder,
    "encoder-norm-first": lambda: attention.Encoder(norm_first=True),
    "grouped-query-decoder": attention.GroupedQuery,
}
_DIGITS: dict[str, Build] = {"lenet-300-100": LeNet300, "lenet-5": LeNet5Mini}
_SIGNALS: dict[str, Build] = {"temporal-conv": sequences.TemporalConv}


def found() -> Iterator[Entry]:
    """All of them."""
    for table, make in ((_IMAGES, _images), (_WORDS, _words), (_DIGITS, _digits), (_SIGNALS, _signals)):
        for name, build in table.items():
            yield Entry(f"plain/{name}", "", "plain", _seeded(build), make)


def _seeded(build: Build) -> Build:
    def seeded() -> nn.Module:
        torch.manual_seed(0)
        return shaken(build())

    return seeded


def _images(model: nn.Module) -> tuple[Tensor, ...]:
    return (_normal(2, 3, 32, 32),)


def _digits(model: nn.Module) -> tuple[Tensor, ...]:
    return (_normal(2, 1, 28, 28),)


def _signals(model: nn.Module) -> tuple[Tensor, ...]:
    return (_normal(2, 4, 16),)


def _words(model: nn.Module) -> tuple[Tensor, ...]:
    return (torch.randint(0, 96, (2, 8), generator=torch.Generator().manual_seed(0)),)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
