"""Models, optimizers and states that cannot work, and changes while attached: said clearly, with nothing half done."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import NotFinite


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Linear(8, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.norm(self.first(x))))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def attached(**more: Any) -> tuple[Net, torch.optim.Optimizer, sc.Pruner]:
    model = Net()
    optimizer = sgd(model)
    settings = {"sparsity": 0.5, "begin": 1, "end": 5, "every": 2, **more}
    return model, optimizer, sc.Pruner(model, "gmp", **settings).attach(optimizer)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 6)).square().sum().backward()
    optimizer.step()


# -- weights that cannot be pruned as they are ------------------------------------------------------------------------------


def odd(kind: str) -> Net:
    model = Net()
    if kind == "meta":
        model.last.to("meta")
    if kind == "sparse":
        model.last.weight = nn.Parameter(model.last.weight.detach().to_sparse())
    if kind == "integer":
        model.last.weight = nn.Parameter(torch.ones(4, 8, dtype=torch.int8), requires_grad=False)
    if kind == "overlapping":
        model.last.weight = nn.Parameter(model.first.weight.detach().view(6, 8)[:4])
    if kind == "frozen":
        model.requires_grad_(False)
    return model


REASONS = {"meta": "meta device", "sparse": "sparse_coo", "overlapping": "share memory", "frozen": "frozen"}


@pytest.mark.parametrize("kind", REASONS)
def test_weights(kind: str, refused: Any) -> None:
    model = odd(kind)
    name = "'first.weight'" if kind in ("overlapping", "frozen") else "'last.weight'"
    with refused(say=[name, REASONS[kind]]):
        sc.Pruner(model, "gmp", sparsity=0.5, end=4)


def test_quantised_weights_are_left_alone_or_refused_in_one_shot(refused: Any) -> None:
    assert list(sc.Pruner(odd("integer"), "gmp", sparsity=0.5, end=4).masks) == ["first.weight"]
    with refused(say=["'last.weight'", "int8"]):
        sc.prune(odd("integer"), "magnitude", sparsity=0.5)


# -- attaching --------------------------------------------------------------------------------------------------------------


def test_an_optimizer_of_another_model(refused: Any) -> None:
    model, other = Net(), Net()
    optimizer, pruner = sgd(other), sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=4)
    with refused(model, other, optimizer, pruner, say=["'first.weight', 'last.weight'", "other parameters"]):
        pruner.attach(optimizer)


def test_an_optimizer_of_some_of_the_weights(refused: Any) -> None:
    model = Net()
    optimizer = sgd(model.last)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, end=4)
    with refused(model, optimizer, pruner, say=["'first.weight'", "of the 2"]):
        pruner.attach(optimizer)
    sc.Pruner(model, "gmp", sparsity=0.5, end=4, include="last").attach(optimizer)


def test_no_optimizer(refused: Any) -> None:
    model = Net()
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, end=4)
    with refused(model, pruner, say=["list", "optimizer"]):
        pruner.attach(list(model.parameters()))  # type: ignore[arg-type]


def test_attached_twice(refused: Any) -> None:
    model, optimizer, pruner = attached()
    with refused(model, optimizer, pruner, say=["attached already"]):
        pruner.attach(optimizer)


@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
def test_two_pruners_on_one_parameter(variant: str, refused: Any) -> None:
    model, optimizer, pruner = attached()
    second = sc.Pruner(model, "magnitude", sparsity=0.5, include="last", enforcement=variant)
    with refused(model, optimizer, pruner, second, say=["'last.weight'", "'gmp'", "finish()"]):
        second.attach(optimizer)
    pruner.finish()
    second.attach(optimizer)


def test_two_pruners_on_one_layer(refused: Any) -> None:
    model = nn.LSTM(6, 4)
    optimizer = sgd(model)
    first = sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=0, include="weight_ih_l0").attach(optimizer)
    second = sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=0, include="weight_hh_l0")
    with refused(model, optimizer, first, second, say=["'weight_hh_l0'", "masked already"]):
        second.attach(optimizer)
    model(torch.ones(2, 6))
    first.finish()
    second.attach(optimizer)
    model(torch.ones(2, 6))


def test_a_copy_of_a_model_being_pruned(refused: Any) -> None:
    model, _, pruner = attached()
    twin = copy.deepcopy(model)
    its, second = sgd(twin), sc.Pruner(twin, "gmp", sparsity=0.5, begin=0, end=4)
    with refused(model, twin, its, pruner, second, say=["'first.weight'", "apply_to"]):
        second.attach(its)
    pruner.apply_to(twin)
    second.attach(its)


def test_embeddings_that_need_the_parameter_itself(refused: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Embedding(5, 3, max_norm=1.0))
    optimizer = sgd(model)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=4)
    with refused(model, optimizer, pruner, say=["'1.weight'", "max_norm", "enforcement='overwrite'"]):
        pruner.attach(optimizer)
    sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=4, enforcement="overwrite").attach(optimizer)


@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
def test_a_gradient_before_the_first_backward_pass(variant: str, refused: Any) -> None:
    model = Net()
    optimizer, pruner = sgd(model), sc.Pruner(model, "taylor", sparsity=0.5, enforcement=variant)
    with refused(model, optimizer, pruner, say=["'first.weight'", "no gradient", "begin"]):
        pruner.attach(optimizer)
    sc.Pruner(model, "gmp", sparsity=0.5, end=4).attach(optimizer)


@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
def test_weights_that_are_not_finite_when_attached(variant: str, refused: Any) -> None:
    model = Net()
    with torch.no_grad():
        model.last.weight[1, 2] = float("inf")
    optimizer, pruner = sgd(model), sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=4, enforcement=variant)
    with refused(model, optimizer, pruner, say=["'last.weight'", "1 non-finite of 32"], error=NotFinite):
        pruner.attach(optimizer)


# -- while attached ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
@pytest.mark.parametrize("threshold", ["exact", "histogram"])
def test_weights_that_are_not_finite_at_an_update(variant: str, threshold: str, refused: Any) -> None:
    """The update is not made, the step not counted; when the weights are mended, the next step makes it."""
    model, optimizer, pruner = attached(enforcement=variant, options={"threshold": threshold})
    for _ in range(2):
        step(model, optimizer)
    stored = dict(model.named_parameters())
    good = stored["last.weight"].detach().clone()
    with torch.no_grad():
        stored["last.weight"][0, 0] = float("nan")
    optimizer.zero_grad()
    with refused(model, optimizer, pruner, say=["'last.weight'", "1 non-finite of 32"], error=NotFinite):
        optimizer.step()
    with torch.no_grad():
        stored["last.weight"].copy_(good)
    step(model, optimizer)
    assert pruner.step_count == 3 and [row["step"] for row in pruner.history] == [1, 3]


def replace(model: Net) -> None:
    model.last.weight = nn.Parameter(torch.ones(4, 8))


def freeze(model: Net) -> None:
    dict(model.named_parameters())["last.weight"].requires_grad_(False)


def resize(model: Net) -> None:
    dict(model.named_parameters())["last.weight"].data = torch.ones(5, 8)


def broadcastable(model: Net) -> None:
    dict(model.named_parameters())["last.weight"].data = torch.ones(1, 8)


def share(model: Net) -> None:
    model.extra = nn.Linear(8, 4)
    model.extra.weight = dict(model.named_parameters())["last.weight"]  # type: ignore[assignment]


def remove(model: Net) -> None:
    model.last = nn.Linear(8, 4)  # the old layer still holds the weight, but is no longer part of the model


CHANGES = {
    replace: "replaced",
    freeze: "frozen",
    resize: "from (4, 8) to (5, 8)",
    broadcastable: "from (4, 8) to (1, 8)",
    share: "'extra.weight'",
    remove: "'last.weight'",
}


@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_parameter_that_is_not_what_it_was(change: Any, variant: str, refused: Any) -> None:
    """Noticed before the masks are ranked again, before they are saved, and before they are written into the weights."""
    model, optimizer, pruner = attached(enforcement=variant)
    optimizer.zero_grad()
    for _ in range(2):
        optimizer.step()
    change(model)
    for act in (pruner.step, pruner.state_dict, pruner.finish):
        with refused(model, optimizer, pruner, say=["'last.weight'", CHANGES[change]]):
            act()
    pruner.detach()
    assert not any(getattr(type(m), "_secateurs_masked", False) for m in model.modules())


def test_a_parameter_changed_before_it_is_attached(refused: Any) -> None:
    model = Net()
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=4)
    model.last = nn.Linear(8, 4, bias=False)
    optimizer = torch.optim.SGD([*model.parameters(), pruner.weights[1].parameter], lr=0.1)
    with refused(model, optimizer, pruner, say=["'last.weight'", "final form"]):
        pruner.attach(optimizer)


@pytest.mark.parametrize("way", [lambda m: pickle.dumps(m), lambda m: torch.save(m, io.BytesIO())])
def test_pickling_a_model_being_pruned(way: Any, refused: Any) -> None:
    model, optimizer, pruner = attached()
    with refused(model, optimizer, pruner, say=["Linear", "state_dict()", "finish()"]):
        way(model)
    assert len(pickle.dumps(pruner.finish())) > 100


def test_data_parallel(refused: Any) -> None:
    """It would copy the layers without their parameters; an overwritten model has nothing to lose."""
    model, optimizer, pruner = attached()
    with refused(model, optimizer, pruner, say=["DataParallel", "'overwrite'"]):
        model.first._replicate_for_data_parallel()
    attached(enforcement="overwrite")[0].first._replicate_for_data_parallel()


def test_apply_to_the_model_itself_or_to_a_stranger(refused: Any) -> None:
    model, optimizer, pruner = attached()
    with refused(model, optimizer, pruner, say=["finish()"]):
        pruner.apply_to(model)
    other = nn.Sequential(nn.Linear(6, 8))
    with refused(model, other, pruner, say=["'first.weight'"]):
        pruner.apply_to(other)


# -- states -----------------------------------------------------------------------------------------------------------------


def other_state(kind: str) -> tuple[Any, list[str]]:
    state = attached()[2].state_dict()
    if kind == "recipe":
        return attached(sparsity=0.75)[2].state_dict(), ["sparsity was 0.75, now 0.5"]
    if kind == "version":
        return {**state, "version": 2}, ["version 2", "version 1"]
    if kind == "nothing":
        return {}, ["version None"]
    if kind == "no dict":
        return [1, 2], ["list"]
    if kind == "incomplete":
        return {key: value for key, value in state.items() if key != "history"}, ["'history'"]
    masks = dict(state["masks"])
    if kind == "shape":
        masks["last.weight"] = {"bits": torch.ones(5, dtype=torch.uint8), "shape": [5, 8]}
        return {**state, "masks": masks}, ["'last.weight'", "(5, 8)", "(4, 8)"]
    assert kind == "names"
    masks["head.weight"] = masks.pop("last.weight")
    return {**state, "masks": masks}, ["'last.weight'", "(4, 8) here"]


@pytest.mark.parametrize("kind", ["recipe", "version", "nothing", "no dict", "incomplete", "shape", "names"])
def test_a_state_of_something_else(kind: str, refused: Any) -> None:
    state, say = other_state(kind)
    model, optimizer, pruner = attached()
    for _ in range(3):
        step(model, optimizer)
    with refused(model, optimizer, pruner, say=say):
        pruner.load_state_dict(state)


def test_a_state_of_a_method_that_keeps_none(refused: Any) -> None:
    model = Net()
    optimizer = sgd(model)
    pruner = sc.Pruner(model, "magnitude", sparsity=0.5).attach(optimizer)
    with refused(model, optimizer, pruner, say=["'magnitude'", "momentum"]):
        pruner.load_state_dict({**pruner.state_dict(), "method": {"momentum": 3}})
