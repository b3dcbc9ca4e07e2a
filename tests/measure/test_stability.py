"""Distances between trainings, and the loss on the line between two networks, on numbers one can check."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.measure import distance, segment
from secateurs.train.reestimate import reestimate

MASKS = {"w": torch.tensor([True, True, False])}


def weights(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values)}


def test_only_what_is_kept_counts() -> None:
    found = distance(weights(3.0, 0.0, 9.0), weights(0.0, 4.0, -9.0), MASKS)
    assert found.l2 == pytest.approx(5) and found.angle == pytest.approx(90)
    assert distance(weights(1.0, 1.0, 0.0), weights(2.0, 0.0, 5.0), MASKS).angle == pytest.approx(45)


def test_it_is_nought_for_the_same_weights_and_symmetric() -> None:
    a, b = weights(0.1, 0.7, 1.0), weights(-0.3, 0.2, 2.0)
    same = distance(a, weights(0.1, 0.7, 5.0), MASKS)
    assert (same.l2, same.angle) == (0, 0)
    assert distance(a, b, MASKS) == distance(b, a, MASKS)
    assert distance(weights(0.0, 0.0, 1.0), b, MASKS).angle == 90 and distance(a, a, {}).l2 == 0


def test_modules_are_compared_by_their_parameters() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    masks = {"weight": torch.rand(2, 3) > 0.5}
    a, b = (layer.weight.detach().double() * masks["weight"] for layer in (first, second))
    found = distance(first, second, masks)
    assert found.l2 == pytest.approx(float((a - b).norm()))
    assert found.angle == pytest.approx(math.degrees(math.acos(float((a * b).sum() / (a.norm() * b.norm())))))


def test_other_weights_are_refused() -> None:
    with pytest.raises(BadInput, match=r"'w' with shape \(3,\), and one of the two networks lacks it"):
        distance({}, weights(1.0, 2.0, 3.0), MASKS)
    with pytest.raises(BadInput, match=r"has it with shape \(2,\)"):
        distance(weights(1.0, 2.0, 3.0), weights(1.0, 2.0), MASKS)


def point(value: float) -> nn.Module:
    found = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(found.weight, value)
    return found


def test_the_barrier_of_a_double_well() -> None:
    """(w^2 - 1)^2 is 0 at both ends, -1 and 1, and 1 in the middle; from 0 to 1 it only falls."""

    def error(model: nn.Module) -> float:
        return float((model.weight.detach() ** 2 - 1) ** 2)  # type: ignore[operator]

    found = segment(point(-1), point(1), error, steps=4)
    assert found.places == (0, 0.25, 0.5, 0.75, 1) and found.values[2] == 1
    assert found.barrier == pytest.approx(1) and found.instability == pytest.approx(1)
    down = segment(point(0), point(1), error, steps=2)
    assert down.values == pytest.approx((1, 0.5625, 0))
    assert down.barrier == pytest.approx(0.0625) and down.instability == pytest.approx(0.5)


def test_the_same_network_twice_has_no_barrier() -> None:
    found = segment(point(0.3), point(0.3), lambda model: float(model.weight.detach() ** 2), steps=3)  # type: ignore[operator]
    assert len(set(found.values)) == 1 and found.barrier == found.instability == 0


def test_batch_norms_can_be_measured_anew_between_the_ends() -> None:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    state, x = {n: v.clone() for n, v in first.state_dict().items()}, torch.randn(64, 2) * 3 + 1

    def spread(model: nn.Module) -> float:
        model.eval()
        return float(model(x).detach().var(0, unbiased=False).sub(1).abs().max())

    plain = segment(first, second, spread, 2)
    anew = segment(first, second, spread, 2, lambda model: reestimate(model, [x]))
    assert min(plain.values) > 0.1 > max(anew.values)
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())


def test_networks_of_two_shapes_and_no_steps_are_refused() -> None:
    with pytest.raises(BadInput, match="'weight' is not in both"):
        segment(nn.Linear(1, 1), nn.Linear(2, 1), lambda model: 0.0)
    with pytest.raises(BadInput, match="steps=0"):
        segment(point(0), point(1), lambda model: 0.0, steps=0)
