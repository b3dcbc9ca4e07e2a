"""What advise measures, and what it says where nothing becomes faster."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput
from secateurs.train.advice import Advice, LayerAdvice, Point
from tests.planning.nets import IMAGES, Residual


def advice(points, layers=(), round_to=8):
    return Advice(0.010, 0.0005, points, layers, round_to, 1, "cpu")


def test_the_model_is_measured_whole_and_by_layer_and_left_alone():
    model = Residual().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sc.advise(model, IMAGES, ratios=(0.25, 0.5), repeats=3)
    assert [p.ratio for p in found.points] == [0.25, 0.5] and all(p.seconds > 0 for p in found.points)
    assert found.points[0].multiply_adds > found.points[1].multiply_adds
    names = [layer.name for layer in found.layers]
    assert {"stem", "widen", "narrow", "depthwise", "head"} <= set(names)
    assert [layer.seconds for layer in found.layers] == sorted((layer.seconds for layer in found.layers), reverse=True)
    assert all(set(layer.removed) == {0.25, 0.5} for layer in found.layers)
    assert model.training and all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_equal_layers_are_measured_together():
    model = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(16, 16), nn.ReLU())], nn.Linear(16, 2))
    found = sc.advise(model, torch.rand(4, 16), ratios=(0.5,), repeats=2)
    assert max(layer.calls for layer in found.layers if layer.operator == "relu") == 3


def test_a_gain_within_the_spread_is_none():
    noisy = Point(0.5, 0.0094, 0.002, 0.25, 0.25)
    clear = Point(0.5, 0.0060, 0.0005, 0.25, 0.25)
    assert not advice((noisy,)).faster and advice((clear,)).faster
    assert "NOT faster on this machine" in advice((noisy,)).lines()[0]
    assert advice((clear,)).lines()[0].startswith("50% of every group removed: 1.67x faster, 10 ms to 6 ms (25%")


def test_sentences_name_stiff_layers_the_rest_and_rounding():
    stiff = LayerAdvice("head", "linear", "2x8 5x8", 1, 0.004, 0.4, {0.5: 0.004}, 8)
    said = advice((), (stiff,)).lines()
    assert said[0] == "round widths to multiples of 8"
    assert said[1].startswith("60% of the time is not in these layers") and said[2] == "no faster when narrower: head"
    assert "rounding widths gains nothing" in advice((), (stiff,), 1).lines()


def test_as_data_is_plain():
    import json

    stiff = LayerAdvice("head", "linear", "2x8 5x8", 1, 0.004, 0.4, {0.5: 0.004}, None)
    data = json.loads(json.dumps(advice((Point(0.5, 0.006, 0.0, 0.2, 0.2),), (stiff,)).as_data()))
    assert data["layers"][0]["removed"] == {"0.5": 0.004} and data["faster"] is True


@pytest.mark.parametrize("ratios", [(), (1.0,), (-0.1,)])
def test_bad_ratios(ratios):
    with pytest.raises(BadInput, match="ratios"):
        sc.advise(Residual(), IMAGES, ratios=ratios)


def test_nothing_that_could_go():
    with pytest.raises(BadInput, match="everything is frozen"):
        sc.advise(nn.Linear(3, 4), torch.rand(2, 3))
