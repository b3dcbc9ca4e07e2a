"""Forwards that wait for one another: order, change on the way, errors."""

import threading

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.train.in_step import in_step


def doubling():
    """Two layers of one number each, twice the input."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    nn.init.constant_(model[0].weight, 2)
    nn.init.constant_(model[1].weight, 1)
    return model


def together(models, inputs, stop, stations=("0", "1")):
    forwards = [lambda m=m, x=x: m(torch.tensor([[x]])) for m in models for x in inputs]
    in_step(forwards, [{name: m.get_submodule(name) for name in stations} for m in models], stop)


def test_all_come_to_a_layer_before_any_goes_on():
    seen = []
    together([doubling(), doubling()], [1.0, 3.0], lambda name, xs: seen.append((name, [x.item() for x in xs])))
    assert seen == [("0", [1, 3, 1, 3]), ("1", [2, 6, 2, 6])]


def test_what_is_changed_at_a_layer_is_what_runs():
    model, seen = doubling(), []

    def stop(name, xs):
        seen.append([x.item() for x in xs])
        if name == "0":
            with torch.no_grad():
                model[0].weight.fill_(5)

    together([model], [1.0, 2.0], stop)
    assert seen == [[1, 2], [5, 10]]


def test_nothing_stays_behind():
    model, threads = doubling(), threading.active_count()
    together([model], [1.0] * 5, lambda name, xs: None)
    assert threading.active_count() == threads
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert model(torch.ones(1, 1)).requires_grad


@pytest.mark.parametrize("where", ["forward", "stop"])
def test_an_error_ends_all_of_it(where):
    model, threads = doubling(), threading.active_count()

    def forward(x):
        out = model[0](x)
        if where == "forward":
            raise ZeroDivisionError("in the model")
        return model[1](out)

    def stop(name, xs):
        if where == "stop" and name == "1":
            raise ZeroDivisionError("in the model")

    with pytest.raises(ZeroDivisionError, match="in the model"):
        in_step([lambda: forward(torch.ones(1, 1))] * 3, [{"0": model[0], "1": model[1]}], stop)
    assert threading.active_count() == threads
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_batches_that_take_other_ways_are_refused():
    model = doubling()

    def forward(x):
        return model[0](x) if x.item() > 1 else model[1](model[0](x))

    with pytest.raises(BadInput, match="one is at '1' while another is at its end"):
        in_step([lambda: forward(torch.tensor([[1.0]])), lambda: forward(torch.tensor([[2.0]]))],
                [{"0": model[0], "1": model[1]}], lambda name, xs: None)  # fmt: skip
