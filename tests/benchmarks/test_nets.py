"""The benchmark networks have the published sizes and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.nets.lenet import LeNet5Mini, LeNet300
from benchmarks.nets.mobilenet import MobileNet
from benchmarks.nets.resnet import ResNet
from benchmarks.nets.translator import Translator
from benchmarks.nets.wordlm import WordLM


def _millions(model: nn.Module) -> float:
    """Learned parameters without those of norms, as the paper counts them."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    return sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in norms) / 1e6


@pytest.mark.parametrize(("width", "millions"), [(200, 4.65), (650, 19.78), (1500, 66.02)])
def test_word_lstm_has_the_published_sizes(width: int, millions: float) -> None:
    with torch.device("meta"):
        assert round(_millions(WordLM(width)), 2) == millions


def test_word_lstm_begins_with_zeros_where_no_state_is_given() -> None:
    torch.manual_seed(0)
    model, words = WordLM(4, words=9), torch.randint(0, 9, (5, 3))
    for found, wanted in zip(model(words)[1], model(words, model.start(3))[1], strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("width", "millions"), [(1.0, 4.21), (0.75, 2.57), (0.5, 1.32), (0.25, 0.46)])
def test_mobilenet_has_the_published_sizes(width: float, millions: float) -> None:
    with torch.device("meta"):
        assert round(_millions(MobileNet(width)), 2) == millions


def test_mobilenet_exemptions_are_one_percent() -> None:
    with torch.device("meta"):
        model = MobileNet()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    spared = sum(m.weight.numel() for m in convolutions if m.groups > 1) + convolutions[0].weight.numel()
    assert round(spared / (_millions(model) * 1e6), 3) == 0.011


@pytest.mark.parametrize(("width", "millions"), [(256, 34.2), (512, 80.8), (768, 139.7), (1024, 210.9)])
def test_translator_has_the_published_sizes(width: int, millions: float) -> None:
    with torch.device("meta"):
        assert round(_millions(Translator(width, words=36_548, layers=4)), 1) == millions


def test_resnet56_has_its_size_and_refuses_other_depths() -> None:
    with torch.device("meta"):
        assert round(_millions(ResNet(56)), 2) == 0.85
    with pytest.raises(ValueError, match="depth=18"):
        ResNet(18)


@pytest.mark.parametrize("width", [5, 16])
def test_resnet_shortcut_pads_channels(width: int) -> None:
    model = ResNet(8, width).eval()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_lenet_300_100_has_266200_weights_and_scales() -> None:
    weights = [p for p in LeNet300().parameters() if p.dim() == 2]
    assert sum(p.numel() for p in weights) == 266_200
    assert [tuple(p.shape) for p in LeNet300(0.01).parameters() if p.dim() == 2] == [(3, 784), (1, 3), (10, 1)]
    assert LeNet300(0.1)(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_mini_lenet5_has_ten_filters_a_convolution() -> None:
    model = LeNet5Mini()
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [10, 10, 10]
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [(10, 10), (10, 10)]
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_translation_ignores_padding() -> None:
    torch.manual_seed(0)
    model = Translator(8, words=20, layers=3).eval()
    source, target = torch.randint(3, 20, (4, 1)), torch.randint(3, 20, (5, 1))
    wider = torch.cat([source, torch.zeros(3, 1, dtype=torch.long)])
    length = torch.tensor([4])
    torch.testing.assert_close(model(source, length, target), model(wider, length, target))


def test_greedy_follows_the_forward_pass() -> None:
    torch.manual_seed(1)
    model = Translator(8, words=12, layers=2).eval()
    source, lengths = torch.randint(3, 12, (4, 2)), torch.tensor([4, 3])
    said = model.greedy(source, lengths, begin=1, end=2, most=6)
    fed = torch.cat([torch.full((1, 2), 1), said[:-1]])
    assert torch.equal(model(source, lengths, fed).argmax(-1), said)
