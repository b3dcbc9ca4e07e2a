"""Inside the loops people write: optimizers, accumulation, clipping, mixed precision, compilation, averages, closures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import secateurs as sc
from secateurs.core.count import removed_count

VARIANTS = ("keep", "overwrite", "straight-through")
RAMP = {"sparsity": 0.7, "begin": 2, "end": 8, "every": 3}  # updates at 2, 5 and 8
STEPS = 12


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4, bias=False))


def batches(steps: int = STEPS) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        yield torch.randn(5, 6, generator=generator), torch.randint(0, 4, (5,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> None:
    for x, y in batches(steps):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def counts(pruner: sc.Pruner) -> list[int]:
    return [int((~mask).sum()) for mask in pruner.masks.values()]


def exact(sparsity: float = 0.7) -> list[int]:
    return [removed_count(48, sparsity), removed_count(32, sparsity)]


def ranked(w: Tensor, sparsity: float) -> Tensor:
    """The mask by sorting; of equal ones the earlier stay."""
    order = w.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(w.numel(), dtype=torch.bool)
    mask[order[: w.numel() - removed_count(w.numel(), sparsity)]] = True
    return mask.view(w.shape)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5),
    "momentum-decay": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, weight_decay=0.01),
    "nesterov-foreach": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, nesterov=True, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.01),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=0.05, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.05, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_as_the_same_loop_written_by_hand(name: str, variant: str) -> None:
    """Weights and masks are, bit for bit, those of a loop that multiplies, sorts and zeroes for itself."""
    model = net()
    plain = copy.deepcopy(model)
    optimizer, mine = OPTIMIZERS[name](list(model.parameters())), OPTIMIZERS[name](list(plain.parameters()))
    pruner = sc.Pruner(model, "gmp", enforcement=variant, **RAMP).attach(optimizer)
    train(model, optimizer)
    weights = {key: p for key, p in plain.named_parameters() if p.dim() == 2}
    masks = {key: torch.ones_like(p, dtype=torch.bool) for key, p in weights.items()}
    target = 0.0
    for t, (x, y) in enumerate(batches(), start=1):
        mine.zero_grad()
        effective = dict(plain.named_parameters())
        for key, p in weights.items():
            if variant == "keep":
                effective[key] = p * masks[key]
            if variant == "straight-through":
                effective[key] = p + (p * masks[key] - p).detach()
        cross_entropy(functional_call(plain, effective, (x,)), y).backward()
        mine.step()
        if t in (2, 5, 8):
            target = 0.7 * (1 - (1 - (t - 2) / 6) ** 3)
        for key, p in weights.items():
            if variant == "overwrite":
                p.data *= masks[key]
            if t in (2, 5, 8) or (variant == "straight-through" and t > 2):
                masks[key] = ranked(p, target)
            if variant == "overwrite":
                p.data *= masks[key]
    assert all(torch.equal(pruner.masks[key], mask) for key, mask in masks.items())
    for (key, p), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, theirs), key
    assert counts(pruner) == exact()


def test_accumulated_gradients_count_as_one_step() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", **RAMP).attach(optimizer)
    for i, (x, y) in enumerate(batches(36), start=1):
        (cross_entropy(model(x), y) / 4).backward()
        if i % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert pruner.step_count == 9 and [row["step"] for row in pruner.history] == [2, 5, 8]
    assert counts(pruner) == exact()


def test_clipping_sees_the_masked_gradient() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", sparsity=0.7, schedule="one-shot").attach(optimizer)
    x, y = next(batches())
    (100 * cross_entropy(model(x), y)).backward()
    parameters = dict(model.named_parameters())
    by_hand = torch.stack([p.grad.norm() for p in parameters.values()]).norm()
    assert torch.allclose(nn.utils.clip_grad_norm_(model.parameters(), 0.5), by_hand)
    for name, mask in pruner.masks.items():
        assert (parameters[name].grad[~mask] == 0).all() and (parameters[name].grad[mask] != 0).any()
    assert torch.allclose(torch.stack([p.grad.norm() for p in parameters.values()]).norm(), torch.tensor(0.5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast(variant: str) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    pruner = sc.Pruner(model, "gmp", enforcement=variant, **RAMP).attach(optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
            loss = cross_entropy(out, y)
        assert out.dtype == torch.bfloat16
        loss.backward()
        optimizer.step()
    assert counts(pruner) == exact()
    with torch.autocast("cpu", torch.bfloat16):
        masked = model(x)
        assert torch.equal(pruner.finish()(x), masked)


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_a_step_that_the_scaler_skips_is_not_counted(device: str, fused: bool) -> None:
    """An overflow leaves no trace: no step, no update, no infinite weight. A fused optimizer skips inside its step."""
    model = net().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    pruner = sc.Pruner(model, "gmp", **RAMP).attach(optimizer)
    seen = []
    for i, (x, y) in enumerate(batches()):
        optimizer.zero_grad()
        loss = cross_entropy(model(x.to(device)), y.to(device))
        scaler.scale(loss * float("inf") if i in (1, 6) else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        seen.append(pruner.step_count)
    assert seen == [1, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]
    assert [row["step"] for row in pruner.history] == [2, 5, 8] and counts(pruner) == exact()


class Counting:
    """A compiler back end that only counts how often it is called."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Tensor]:
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("attached", ["before", "after"])
def test_compiled(variant: str, attached: str) -> None:
    """Compiled before or after it is attached; a change of the masks is seen and compiles nothing anew."""
    torch._dynamo.reset()
    model, plain = net(), net()
    plain.load_state_dict(model.state_dict())
    counter = Counting()
    x = torch.randn(5, 6)
    optimizer, its = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(plain.parameters(), lr=0.1)
    compiled = torch.compile(model, backend=counter)
    if attached == "after":
        compiled(x)
    pruner = sc.Pruner(compiled if attached == "after" else model, "gmp", enforcement=variant, **RAMP).attach(optimizer)
    twin = sc.Pruner(plain, "gmp", enforcement=variant, **RAMP).attach(its)
    train(compiled, optimizer, 1)
    graphs = counter.graphs
    train(compiled, optimizer)
    train(plain, its, 1)
    train(plain, its)
    assert counter.graphs == graphs >= 1
    assert all(torch.equal(pruner.masks[name], mask) for name, mask in twin.masks.items())
    masked = compiled(x)
    torch.testing.assert_close(masked, plain(x))
    pruner.finish()
    torch.testing.assert_close(compiled(x), masked)
    torch.testing.assert_close(model(x), masked)
    assert list(model.state_dict()) == list(net().state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_to_machine_code(variant: str) -> None:
    torch._dynamo.reset()
    model, plain = net(), net()
    plain.load_state_dict(model.state_dict())
    optimizer, its = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(plain.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", enforcement=variant, **RAMP).attach(optimizer)
    twin = sc.Pruner(plain, "gmp", enforcement=variant, **RAMP).attach(its)
    train(torch.compile(model), optimizer)
    train(plain, its)
    assert all(torch.equal(pruner.masks[name], mask) for name, mask in twin.masks.items())
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("made", ["before", "after"])
def test_moving_average(made: str) -> None:
    """The average is over stored values; apply_to masks it with the final masks, whenever it was made."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)) if made == "before" else None
    pruner = sc.Pruner(model, "gmp", **RAMP).attach(optimizer)
    average = average or AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    expected: dict[str, Tensor] = {}
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        average.update_parameters(model)
        for name, p in model.named_parameters():
            expected[name] = p.detach().clone() if name not in expected else torch.lerp(expected[name], p.detach(), 0.5)
    assert pruner.apply_to(average) is average
    for name, p in average.module.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name] * pruner.masks.get(name, torch.tensor(True)))
    assert all(type(m).__mro__[0].__module__.startswith("torch.nn") for m in average.module.modules())
    assert not any(getattr(type(m), "_secateurs_masked", False) for m in average.modules())
    assert pruner.sparsity == pytest.approx(sum(exact()) / 80), "and the model itself goes on"


def test_parameter_groups() -> None:
    """Weights in several groups, some of them with other settings, and a group that grows later."""
    model = net()
    groups = [{"params": [model[0].weight], "lr": 0.0}, {"params": [model[0].bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.2)
    optimizer.add_param_group({"params": [model[2].weight], "momentum": 0.9})
    start = model[0].weight.detach().clone()
    pruner = sc.Pruner(model, "gmp", **RAMP).attach(optimizer)
    train(model, optimizer)
    assert counts(pruner) == exact()
    assert torch.equal(pruner.masks["0.weight"], ranked(start, 0.7)), "what does not learn is ranked as it began"


def test_two_optimizers_with_a_pruner_each() -> None:
    model = net()
    first, last = (torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2))
    early = sc.Pruner(model, "gmp", sparsity=0.5, end=2, include="0").attach(first)
    late = sc.Pruner(model, "gmp", sparsity=0.75, end=4, include="2").attach(last)
    for x, y in batches(5):
        cross_entropy(model(x), y).backward()
        first.step()
        last.step()
        model.zero_grad()
    assert counts(early) == [24] and counts(late) == [24]
    early.finish()
    assert late.sparsity == 0.75 and int((model[2].weight == 0).sum()) == 24, "the other goes on"
    late.finish()


@pytest.mark.parametrize("variant", VARIANTS)
def test_closures(variant: str) -> None:
    """L-BFGS evaluates many times in one step: one step is counted, and every evaluation sees the same masks."""
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.2, max_iter=4)
    pruner = sc.Pruner(model, "gmp", enforcement=variant, **RAMP).attach(optimizer)
    evaluations = []
    for x, y in batches(10):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            evaluations.append({name: mask.clone() for name, mask in pruner.masks.items()})
            return loss

        evaluations.clear()
        optimizer.step(closure)
        assert len(evaluations) > 1
        assert all(torch.equal(seen[name], evaluations[0][name]) for seen in evaluations for name in seen)
    assert pruner.step_count == 10 and counts(pruner) == exact()


@pytest.mark.parametrize("variant", ["keep", "straight-through"])
def test_functional_call_and_per_sample_gradients(variant: str) -> None:
    """Parameters passed in are masked like the stored ones, under torch.func's transforms too."""
    model = net()
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, schedule="one-shot", enforcement=variant)
    pruner.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    x, y = next(batches())
    other = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    masked = {name: p * pruner.masks.get(name, torch.tensor(True)) for name, p in other.items()}
    plain = net()
    torch.testing.assert_close(functional_call(model, other, (x,)), functional_call(plain, masked, (x,)))

    def loss(parameters: dict[str, Tensor], network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (x,)), y)

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, None, 0, 0))
    mine, theirs = each(other, model, x, y), each(masked, plain, x, y)
    for name, gradient in theirs.items():
        mask = pruner.masks.get(name, torch.tensor(True)) if variant == "keep" else torch.tensor(True)
        torch.testing.assert_close(mine[name], gradient * mask)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant: bool) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(3)
        model = net()
        sc.Pruner(model, "gmp", sparsity=0.5, schedule="one-shot").attach(torch.optim.SGD(model.parameters(), lr=0.1))
        x, y = next(batches())
        x.requires_grad_(True)
        out = checkpoint(model, x, use_reentrant=reentrant) if recompute else model(x)
        cross_entropy(out, y).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


def test_gradient_criteria_rank_by_the_gradient_of_the_step() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, schedule="one-shot", begin=1, criterion="gradient").attach(optimizer)
    train(model, optimizer, 1)
    for name, p in model.named_parameters():
        if name in pruner.masks:
            assert p.grad is not None
            assert torch.equal(pruner.masks[name], ranked(p.grad, 0.5))


def test_checkpoints_of_the_model_load_into_a_plain_one_and_back() -> None:
    """The state dict has the stored values under the same names, whichever of the two models is masked."""
    model, plain = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, schedule="one-shot").attach(optimizer)
    train(model, optimizer, 3)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 6)
    assert not torch.equal(plain(x), model(x)), "values are kept under the mask"
    torch.testing.assert_close(pruner.apply_to(plain)(x), model(x), rtol=0, atol=0)
    other = net()
    model.load_state_dict(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    torch.testing.assert_close(pruner.apply_to(other)(x), model(x), rtol=0, atol=0)
