"""The three lawful enforcement variants on six weights, in numbers one can follow by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import secateurs as sc

VARIANTS = ("keep", "overwrite", "straight-through")
START = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6]
FIRST = [False, False, False, True, True, True]  # half of them removed at the start: the three smallest


def six(values: list[float] | Tensor = START) -> nn.Linear:
    """A layer of six weights, ``y = w x``, so that the gradient of y to w is x."""
    layer = nn.Linear(6, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(values, dtype=torch.float64).view(1, 6))
    return layer


def stored(layer: nn.Module) -> Tensor:
    """The parameter itself, whatever ``layer.weight`` shows."""
    return next(layer.parameters()).detach().flatten()


def mask_of(pruner: sc.Pruner) -> list[bool]:
    return next(iter(pruner.masks.values())).flatten().tolist()


def halved(layer: nn.Module, enforcement: str, optimizer: torch.optim.Optimizer, last: int = 99, **more: object) -> sc.Pruner:
    """Half of the weights masked from the start, ranked again after every step."""
    choices = {"sparsity": 0.5, "schedule": "constant", "begin": 0, "end": last, "every": 1, **more}
    return sc.Pruner(layer, "gmp", enforcement=enforcement, **choices).attach(optimizer)


def step(layer: nn.Module, optimizer: torch.optim.Optimizer, x: list[float]) -> Tensor:
    """One step on the loss ``w x``; returns the gradient that the parameter got."""
    optimizer.zero_grad()
    layer(torch.tensor([x], dtype=torch.float64)).sum().backward()
    gradient = next(layer.parameters()).grad.clone().flatten()  # type: ignore[union-attr]
    optimizer.step()
    return gradient


def close(found: Tensor, expected: list[float]) -> bool:
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


# -- the same numbers under all three -------------------------------------------------------------------------------------

PULL = [1.0, 1.0, 9.0, 1.0, 3.0, 1.0]  # at a rate of 0.1 it drags 0.5 down to 0.2, and would drag 0.3 to -0.6
RETURNS = {
    # variant: (gradient, stored values after the step, mask after the step)
    # the stored 0.3 now beats 0.2 and returns as it was
    "keep": ([0, 0, 0, 1, 3, 1], [0.1, -0.2, 0.3, -0.5, 0.2, -0.7], [False, False, True, True, False, True]),
    # 0.3 became 0; the step lifts it to -0.9, but it is zero again before it is ranked, and stays out
    "overwrite": ([1, 1, 9, 1, 3, 1], [0, 0, 0, -0.5, 0.2, -0.7], [False, False, False, True, True, True]),
    # the dead 0.3 has learned to be -0.6 and returns with that
    "straight-through": ([1, 1, 9, 1, 3, 1], [0.0, -0.3, -0.6, -0.5, 0.2, -0.7], [False, False, True, True, False, True]),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_returns_and_with_which_value(variant: str) -> None:
    layer = six()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner = halved(layer, variant, optimizer)
    assert mask_of(pruner) == FIRST
    gradient = step(layer, optimizer, PULL)
    expected_gradient, expected_values, expected_mask = RETURNS[variant]
    assert gradient.tolist() == expected_gradient
    assert close(stored(layer), expected_values)
    assert mask_of(pruner) == expected_mask
    kept = [v if m else 0.0 for v, m in zip(expected_values, expected_mask, strict=True)]
    assert close(layer(torch.eye(6, dtype=torch.float64)).flatten().detach(), kept)
    assert close(stored(pruner.finish()), kept)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=40)
@given(
    pulls=st.lists(st.lists(st.integers(-5, 5), min_size=6, max_size=6), min_size=1, max_size=5),
    momentum=st.sampled_from([0.0, 0.5]),
)
def test_each_variant_by_its_own_rule(variant: str, pulls: list[list[int]], momentum: float) -> None:
    """Against the rules written out on plain tensors, over any sequence of gradients; all numbers are exact in binary."""
    layer = six([1, -2, 3, -4, 5, -6])
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=momentum)
    pruner = halved(layer, variant, optimizer)
    w, speed = torch.tensor([1.0, -2, 3, -4, 5, -6], dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    mask = three_largest(w)
    w = w * mask if variant == "overwrite" else w
    for i, pull in enumerate(pulls):
        gradient = torch.tensor(pull, dtype=torch.float64)
        gradient = gradient * mask if variant == "keep" else gradient
        speed = momentum * speed + gradient if i else gradient.clone()
        w = w - speed
        w = w * mask if variant == "overwrite" else w
        mask = three_largest(w)
        w = w * mask if variant == "overwrite" else w
        step(layer, optimizer, [float(v) for v in pull])
        assert mask_of(pruner) == mask.tolist()
        assert torch.equal(stored(layer), w)


def three_largest(w: Tensor) -> Tensor:
    """By sorting; of equal ones the earlier stay."""
    keep = sorted(range(6), key=lambda i: (-abs(float(w[i])), i))[:3]
    return torch.tensor([i in keep for i in range(6)])


# -- keep -------------------------------------------------------------------------------------------------------------------


def test_keep_leaves_masked_values_alone_under_plain_sgd() -> None:
    layer = six()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    halved(layer, "keep", optimizer, last=0)
    for _ in range(5):
        assert step(layer, optimizer, [7.0] * 6).tolist() == [0, 0, 0, 7, 7, 7]
    assert stored(layer)[:3].tolist() == START[:3]
    assert not torch.equal(stored(layer)[3:], torch.tensor(START[3:], dtype=torch.float64))


def test_keep_lets_weight_decay_erode_masked_values() -> None:
    layer = six()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.5)
    halved(layer, "keep", optimizer, last=0)
    for _ in range(2):
        step(layer, optimizer, [1.0] * 6)
    assert close(stored(layer)[:3], [v * 0.95 * 0.95 for v in START[:3]])


def test_keep_lets_momentum_run_out_in_masked_values() -> None:
    layer = six()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.5)
    pruner = sc.Pruner(layer, "gmp", sparsity=0.5, schedule="one-shot", begin=1).attach(optimizer)
    step(layer, optimizer, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # speed 1 in the first weight, which is now 0.0 and masked
    assert mask_of(pruner) == FIRST
    for _ in range(2):
        assert step(layer, optimizer, [1.0] * 6)[0] == 0
    assert close(stored(layer)[:3], [0.0 - 0.1 * (0.5 + 0.25), -0.2, 0.3])


def test_ranking_the_masked_product_would_be_another_method() -> None:
    """The masked values decide on their own return: raise one by hand and it is back at the next update."""
    layer = six()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner = halved(layer, "keep", optimizer)
    with torch.no_grad():
        next(layer.parameters())[0, 0] = 5.0
    step(layer, optimizer, [0.0] * 6)
    assert mask_of(pruner) == [True, False, False, False, True, True]
    assert stored(layer)[0] == 5.0


def test_keep_shows_the_product_and_stores_the_value() -> None:
    layer = six()
    pruner = halved(layer, "keep", torch.optim.SGD(layer.parameters(), lr=0.1))
    assert layer.weight.flatten().tolist() == [0, 0, 0, -0.4, 0.5, -0.6]
    assert layer.state_dict()["weight"].flatten().tolist() == START
    assert isinstance(layer, nn.Linear) and type(layer).__name__ == "Linear" and repr(layer).startswith("Linear(")
    pruner.detach()
    assert type(layer) is nn.Linear and layer.weight.flatten().tolist() == START


# -- overwrite --------------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_overwritten_weights_are_zero_after_every_step_and_never_return(name: str) -> None:
    layer = six()
    optimizer = OPTIMIZERS[name](layer.parameters())
    pruner = sc.Pruner(layer, "gmp", enforcement="overwrite", sparsity=0.5, begin=2, end=8, every=2).attach(optimizer)
    gone = torch.zeros(6, dtype=torch.bool)
    for i in range(12):
        step(layer, optimizer, [float(3 * (i % 3) - 2)] * 3 + [9.0, -9.0, 0.5])
        masked = ~torch.tensor(mask_of(pruner))
        assert (stored(layer)[masked] == 0).all()
        assert (masked | ~gone).all(), "a zero is always ranked lowest"
        gone = masked
    assert int(gone.sum()) == 3


def test_overwrite_leaves_the_layer_as_it_is() -> None:
    layer = six()
    halved(layer, "overwrite", torch.optim.SGD(layer.parameters(), lr=0.1))
    assert type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter)
    assert layer.weight.flatten().tolist() == [0, 0, 0, -0.4, 0.5, -0.6]


# -- straight-through -------------------------------------------------------------------------------------------------------


def test_straight_through_gradient_is_that_of_the_effective_weight() -> None:
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    twin = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    twin.load_state_dict(net.state_dict())
    pruner = sc.Pruner(net, "gmp", enforcement="straight-through", sparsity=0.6, schedule="one-shot")
    pruner.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.mul_(pruner.masks[name]) if name in pruner.masks else None
    x = torch.randn(4, 5, dtype=torch.float64)
    net(x).square().sum().backward()
    twin(x).square().sum().backward()
    for (name, mine), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad), name  # type: ignore[arg-type]
        assert name not in pruner.masks or mine.grad[~pruner.masks[name]].any(), name  # type: ignore[index]


def test_straight_through_ranks_after_every_step_and_after_the_end() -> None:
    layer = six()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner = halved(layer, "straight-through", optimizer, last=4, every=2)
    for i in range(8):
        step(layer, optimizer, [8.0, 0, 0, 0, 0, 0])  # the first weight runs away from 0.1 by -0.8 a step
        assert mask_of(pruner) == three_largest(stored(layer)).tolist(), i
    assert [row["step"] for row in pruner.history] == [0, 2, 4]
    assert mask_of(pruner) == [True, False, False, False, True, True]


def test_straight_through_ranks_nothing_before_begin() -> None:
    layer = six()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner = halved(layer, "straight-through", optimizer, begin=3)
    for seen in (0.0, 0.0, 0.5, 0.5):
        step(layer, optimizer, [0.0] * 6)
        assert pruner.sparsity == seen


def test_straight_through_one_layer_at_a_time() -> None:
    """A layer that had its turn is not ranked back to the target of before it while the others wait for theirs."""
    net = nn.Sequential(six(), nn.Linear(1, 6, bias=False, dtype=torch.float64))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    pruner = sc.Pruner(net, "gmp", enforcement="straight-through", options={"order": "layerwise"}, sparsity=0.5,
                       schedule="linear", begin=0, end=6, every=6).attach(optimizer)  # fmt: skip
    seen = []
    for _ in range(6):
        optimizer.zero_grad()
        net(torch.ones(1, 6, dtype=torch.float64)).sum().backward()
        optimizer.step()
        seen.append([6 - kept for kept in pruner.masks.kept().values()])
    assert seen == [[0, 0], [0, 0], [3, 0], [3, 0], [3, 0], [3, 3]]


@pytest.mark.parametrize("variant", ("keep", "straight-through"))
def test_gradients_of_gradients(variant: str) -> None:
    """A gradient penalty differentiates through the mask twice."""
    layer = six()
    halved(layer, variant, torch.optim.SGD(layer.parameters(), lr=0.1))
    x = torch.ones(1, 6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    gradient = next(layer.parameters()).grad.flatten()  # type: ignore[union-attr]
    assert (gradient[3:] != 0).all()
    assert (gradient[:3] == 0).all() == (variant == "keep")
