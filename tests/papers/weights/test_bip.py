"""BiP: the gradient of the mask against finite differences and a closed form, the two levels' steps, counts, bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import secateurs as sc
from secateurs.core.count import removed_count
from secateurs.errors import BadInput, NotFinite
from secateurs.papers.weights.bip import GRADIENTS
from tests.papers.networks import batches, tiny

STEPS, ALPHA, GAMMA = 12, 0.1, 0.01
BESIDE = batches(2 * STEPS)[STEPS:]


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def slopes(function: Callable[[Tensor], Tensor], at: Tensor, by: float = 1e-6) -> Tensor:
    """Central differences of a scalar function along every entry."""
    ahead, behind = (torch.stack([function(at + sign * by * e) for e in torch.eye(len(at)).double()]) for sign in (1, -1))
    return (ahead - behind) / (2 * by)


# -- the gradient ---------------------------------------------------------------------------------------------------------

THETA, MASK = vector(0.5, -1.0, 2.0, -0.3, 0.8, 0.1), vector(1, 0, 1, 1, 0, 0)
X = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6) ** 3


def curved(z: Tensor) -> Tensor:
    """The loss of a six-weight layer: softplus of its outputs on four inputs."""
    return nn.functional.softplus(X @ z).square().mean()


def gradient_at(z: Tensor) -> Tensor:
    z = z.clone().requires_grad_()
    return torch.autograd.grad(curved(z), z)[0]


@pytest.mark.parametrize("form", GRADIENTS)
def test_without_the_implicit_part_it_is_the_slope_of_the_loss_along_a_relaxed_mask(form: str) -> None:
    g, sign = gradient_at(MASK * THETA), THETA.sign()
    found = GRADIENTS[form](THETA, MASK, g, sign, 0.0)
    torch.testing.assert_close(found, slopes(lambda m: curved(m * THETA), MASK), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found, THETA * g)


NUMBERS = st.lists(st.tuples(st.floats(-3, 3), st.floats(0.05, 0.95)), min_size=1, max_size=6)


@given(NUMBERS, st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_a_linear_loss_has_a_closed_form_which_the_strict_one_meets_at_every_mask(pairs: list[Any], gamma: float) -> None:
    """l(z) = a z: theta*(m) = -m a / gamma, so l(m theta*(m)) = -m^2 a^2 / gamma and its slope is -2 m a^2 / gamma."""
    a, m = (vector(*column) for column in zip(*pairs, strict=True))
    best = -m * a / gamma
    exact = -2 * m * a.square() / gamma
    torch.testing.assert_close(GRADIENTS["strict"](best, m, a, best.sign(), 1 / gamma), exact)
    published = GRADIENTS["published"](best, m, a, best.sign(), 1 / gamma)
    torch.testing.assert_close(published - exact, (m - 1) * a.square() / gamma)  # nothing where the mask is one


def test_the_closed_form_is_the_slope_through_the_lower_level() -> None:
    a, m, gamma = vector(1.0, -2.0, 0.5, 3.0, -0.1, 0.7), vector(1.0, 0.2, 0.5, 0.9, 1.0, 0.0), 0.25

    def upper(mask: Tensor) -> Tensor:
        return (a * mask * (-mask * a / gamma)).sum()

    best = -m * a / gamma
    strict = GRADIENTS["strict"](best, m, a, best.sign(), 1 / gamma)
    torch.testing.assert_close(strict, slopes(upper, m), rtol=1e-6, atol=1e-8)


def test_the_forms_by_hand() -> None:
    """theta = 2, g = 3, 1 / gamma = 0.1: kept and masked, and the official program's by the score's sign."""
    theta, g, mask, sign = vector(2, 2), vector(3, 3), vector(1, 0), vector(1, -1)
    found = {name: form(theta, mask, g, sign, 0.1).tolist() for name, form in GRADIENTS.items()}
    assert found["published"] == pytest.approx([5.1, 5.1])  # (2 - 0.3) 3
    assert found["strict"] == pytest.approx([5.1, 6.0])
    assert found["code"] == pytest.approx([2.4, 9.6])  # 6 -+ 0.1 * 36
    assert found["none"] == [6.0, 6.0]


# -- both levels, in a pruner -----------------------------------------------------------------------------------------------


class Run:
    """The tiny network under BiP; ``scores`` and ``masks`` after every step, the beginning first."""

    def __init__(self, steps: int = STEPS, dtype: torch.dtype = torch.float32, momentum: float = 0.0, **settings: Any):
        self.model = tiny(dtype)
        self.optimizer = torch.optim.SGD(self.model.parameters(), ALPHA, momentum=momentum, weight_decay=GAMMA)
        data = [(x.to(dtype), y) for x, y in BESIDE]
        given = {"sparsity": 0.7, "total_steps": STEPS, "data": data, **settings}
        self.pruner = sc.Pruner(self.model, "bip", **given).attach(self.optimizer)
        self.scores, self.masks, self.weights = [], [], []
        self.note()
        for inputs, labels in batches(STEPS, dtype)[:steps]:
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(inputs), labels).backward()
            self.optimizer.step()
            self.note()

    def note(self) -> None:
        self.scores.append(self.pruner.state_dict()["method"]["scores"])
        self.masks.append({name: mask.clone() for name, mask in self.pruner.masks.items()})
        self.weights.append({w.name: w.parameter.detach().clone() for w in self.pruner.weights})

    def stored(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def gradients(weights: dict[str, Tensor], masks: dict[str, Tensor], biases: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
    """Of the loss to ``z = m * theta``."""
    z = {name: (value * masks[name]).requires_grad_() for name, value in weights.items()}
    loss = nn.functional.cross_entropy(torch.func.functional_call(tiny(torch.float64), {**biases, **z}, batch[0]), batch[1])
    return dict(zip(z, torch.autograd.grad(loss, list(z.values())), strict=True))


@pytest.mark.parametrize("form", GRADIENTS)
def test_the_upper_step_by_hand(form: str) -> None:
    """One step without momentum of the scores: s - beta sign(s) dl/dm, at the weights the lower step has left."""
    run = Run(1, torch.float64, options={"gradient": form, "implicit": 0.5, "momentum": 0.0, "rate": 0.2})
    biases = {name: p.detach() for name, p in run.stored().items() if name.endswith("bias")}
    x, y = BESIDE[0]
    g = gradients(run.weights[1], run.masks[0], biases, (x.double(), y))
    for name, s in run.scores[0].items():
        theta, m = run.weights[1][name], run.masks[0][name].double()
        dm = GRADIENTS[form](theta, m, g[name], s.sign(), 0.5)
        torch.testing.assert_close(run.scores[1][name], s - 0.2 * s.sign() * dm)


def test_momentum_and_the_falling_rate() -> None:
    """Rates 1, 0.1, 0.01 from shares 1/2 and 3/4 on: changes of the scores are rate * velocity, v <- mu v + step."""
    run = Run(options={"rate": 1.0, "momentum": 0.5})
    velocities = [run.pruner.state_dict()["method"]["velocities"]]
    last = {name: run.scores[-2][name] - run.scores[-1][name] for name in run.scores[-1]}
    for name, velocity in velocities[0].items():
        torch.testing.assert_close(last[name], 0.01 * velocity, rtol=1e-3, atol=1e-6)
    plain = Run(options={"rate": 1.0, "momentum": 0.0, "drop": 0.0, "drop_again": 1.0})
    slow = Run(options={"rate": 0.1, "momentum": 0.0, "drop": 1.0, "drop_again": 1.0})
    assert equal(plain.masks[-1], slow.masks[-1])
    for name, scores in plain.scores[1].items():
        torch.testing.assert_close(scores, slow.scores[1][name])


def test_counts_are_exact_after_every_projection_and_the_mask_is_the_top_of_all_scores() -> None:
    run = Run(options={"rate": 2.0})
    assert len({tuple(torch.cat([m.flatten() for m in masks.values()]).tolist()) for masks in run.masks}) > 3, "masks move"
    for scores, masks in zip(run.scores, run.masks, strict=True):
        size, kept = (torch.cat([t.flatten() for t in each.values()]) for each in (scores, masks))
        assert int(kept.sum()) == 400 - removed_count(400, 0.7) == 120
        assert size.abs()[kept].min() >= size.abs()[~kept].max()


@given(st.floats(0, 0.99))
@settings(max_examples=15, deadline=None)
def test_counts_are_exact_at_every_sparsity(sparsity: float) -> None:
    run = Run(2, sparsity=sparsity, options={"rate": 2.0})
    for masks in run.masks:
        assert sum(int((~m).sum()) for m in masks.values()) == removed_count(400, sparsity)


def test_it_begins_as_global_magnitude_pruning_with_a_copy_of_the_weights() -> None:
    run = Run(0)
    assert equal(run.masks[0], dict(sc.prune(tiny(), "global-magnitude", sparsity=0.7).plan.masks))
    assert equal(run.scores[0], run.weights[0])
    held = run.pruner._method._scores
    assert not {t.data_ptr() for t in held.values()} & {w.parameter.data_ptr() for w in run.pruner.weights}


def test_frozen_scores_are_plain_fine_tuning() -> None:
    run = Run(options={"rate": 0.0})
    other = tiny()
    optimizer = torch.optim.SGD(other.parameters(), ALPHA, weight_decay=GAMMA)
    fixed = sc.Pruner(other, "global-magnitude", sparsity=0.7, begin=0, enforcement="keep").attach(optimizer)
    for inputs, labels in batches(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(other(inputs), labels).backward()
        optimizer.step()
    assert equal(run.scores[-1], run.scores[0]) and equal(run.masks[-1], dict(fixed.masks))
    assert equal(run.pruner.finish().state_dict(), fixed.finish().state_dict())


def test_a_masked_weight_moves_by_weight_decay_alone() -> None:
    run = Run(dtype=torch.float64, options={"rate": 0.5})
    for step, masks in enumerate(run.masks[:-1]):
        for name, mask in masks.items():
            before, after = run.weights[step][name], run.weights[step + 1][name]
            torch.testing.assert_close(after[~mask], before[~mask] * (1 - ALPHA * GAMMA), rtol=1e-14, atol=0)
            assert not torch.allclose(after[mask], before[mask] * (1 - ALPHA * GAMMA))


def test_the_upper_step_leaves_the_model_as_it_is() -> None:
    """Weights, running statistics and gradients: after one step all is as without it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4))
    found = []
    for rate in (0.0, 1.0):
        copied = copy.deepcopy(model)
        optimizer = torch.optim.SGD(copied.parameters(), ALPHA)
        sc.Pruner(copied, "bip", sparsity=0.5, total_steps=2, data=BESIDE, options={"rate": rate}).attach(optimizer)
        torch.manual_seed(3)
        x, y = batches(1)[0]
        nn.functional.cross_entropy(copied(x), y).backward()
        optimizer.step()
        gradients = {f"gradient of {name}": p.grad for name, p in copied.named_parameters()}
        found.append({**copied.state_dict(), **gradients, "next random": torch.rand(3)})
    assert equal(*found)


def test_batches_are_asked_for_by_their_number() -> None:
    asked = []

    def data(number: int) -> Any:
        asked.append(number)
        return BESIDE[number]

    listed, called = Run(3), Run(3, data=data)
    assert asked == [0, 1, 2]
    assert equal(listed.scores[-1], called.scores[-1])


def test_rows_go_by_the_norm_of_their_scores_inside_their_layer() -> None:
    run = Run(6, structure="rows", allocation="uniform", sparsity=0.5, options={"rate": 2.0})
    for scores, masks in zip(run.scores, run.masks, strict=True):
        for name, s in scores.items():
            kept = masks[name].all(1)
            assert torch.equal(masks[name].any(1), kept)
            assert int((~kept).sum()) == removed_count(len(s), 0.5)
            norms = s.double().norm(dim=1)
            assert norms[kept].min() >= norms[~kept].max()
    assert not equal(run.masks[0], run.masks[-1])
    with pytest.raises(BadInput, match="use allocation='uniform' with this structure"):
        Run(0, structure="rows", sparsity=0.5)


def test_with_it_the_loss_of_a_wrong_first_mask_falls_below_that_of_the_mask_kept() -> None:
    """Two inputs decide the label; their weights begin small, so that magnitude removes them and a moving mask finds them."""
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y = (x[:, 0] + x[:, 1] > 0).long()
    losses = {}
    for rate in (0.0, 1.0):
        model = nn.Linear(6, 2, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[-0.1, -0.1, 0.2, -0.2, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2, -0.2, 0.2]]))
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        pruner = sc.Pruner(model, "bip", sparsity=8 / 12, total_steps=60, data=[(x[128:], y[128:])], exempt=[],
                           options={"rate": rate}).attach(optimizer)  # fmt: skip
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[:128]), y[:128]).backward()
            optimizer.step()
        finished = pruner.finish()
        losses[rate] = float(nn.functional.cross_entropy(finished(x), y).detach())
        assert int((finished.weight == 0).sum()) == 8
    assert losses[1.0] < losses[0.0] / 2
    assert set(finished.weight.nonzero()[:, 1].tolist()) == {0, 1}


# -- state and bad input ----------------------------------------------------------------------------------------------------


def test_scores_of_half_precision_weights_are_float32() -> None:
    run = Run(3, torch.bfloat16)
    assert {s.dtype for s in run.scores[-1].values()} == {torch.float32}
    assert {p.dtype for p in run.model.parameters()} == {torch.bfloat16}


def test_a_state_without_scores_is_refused() -> None:
    run = Run(2)
    state = run.pruner.state_dict()
    with pytest.raises(BadInput, match="the state of 'bip' lacks velocities; save all of"):
        run.pruner.load_state_dict({**state, "method": {"scores": state["method"]["scores"]}})
    early = sc.Pruner(tiny(), "bip", sparsity=0.7, total_steps=STEPS, data=BESIDE).state_dict()
    with pytest.raises(BadInput, match="taken before the pruner was attached"):
        run.pruner.load_state_dict(early)
    assert equal(run.pruner.state_dict()["method"]["scores"], run.scores[-1])


def test_what_is_missing_is_said_before_anything_is_changed() -> None:
    with pytest.raises(BadInput, match="'bip' takes batches of its own beside those of the training loop: give the pruner"):
        sc.Pruner(tiny(), "bip", sparsity=0.7, total_steps=STEPS)
    with pytest.raises(BadInput, match="criterion='taylor': 'bip' ranks by the scores it learns; leave criterion out"):
        Run(0, criterion="taylor")
    model = tiny()
    pruner = sc.Pruner(model, "bip", sparsity=0.7, data=BESIDE)
    with pytest.raises(BadInput, match="give total_steps="):
        pruner.attach(torch.optim.SGD(model.parameters(), 0.1))
    assert type(model[0]) is nn.Linear and pruner.sparsity == 0
    for option, value in (("gradient", "exact"), ("rate", -1.0), ("momentum", 1.5), ("implicit", float("nan"))):
        with pytest.raises(BadInput, match=f"option {option}={value!r} of 'bip'"):
            Run(0, options={option: value})


def test_a_gradient_that_is_not_finite_stops_the_run_and_leaves_scores_and_masks() -> None:
    bad = (torch.full((8, 12), float("nan")), BESIDE[0][1])
    run = Run(1, data=lambda number: bad if number == 1 else BESIDE[number])
    with pytest.raises(NotFinite, match=r"the upper level's gradient of 0\.weight"):
        run.optimizer.step()
    run.note()
    assert equal(run.scores[-1], run.scores[-2]) and equal(run.masks[-1], run.masks[-2])
    assert run.pruner.step_count == 1
