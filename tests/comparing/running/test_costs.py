"""Costs against counts one can make by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from secateurs.comparing.running.costs import costs, masked_work, most_bytes, use, work_of
from secateurs.comparing.running.task import ready
from secateurs.comparing.spec import Point, Task
from secateurs.errors import BadInput
from secateurs.measure import payload_bytes, stored_bytes
from tests.comparing.toys import TASK, build


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


def conv() -> nn.Module:
    return Conv()


def images() -> dict[str, Any]:
    x, y = torch.randn(20, 1, 8, 8), torch.arange(20) % 5
    return {"train": (x[:16], y[:16]), "test": (x[16:], y[16:])}


CONV = Task("conv", conv, images, steps=2, batch=4, latency_batch=3)


def test_counts_of_a_pruned_convolutional_network() -> None:
    task = ready(CONV)
    model = sc.prune(task.fresh(1), "magnitude", sparsity=0.5).model
    found = costs(task, model, threads=1)
    dense, sparse = 36 * 36 + 720, 18 * 36 + 360
    assert (found["dense_multiply_adds"], found["multiply_adds"]) == (dense, sparse)
    assert (found["parameters"], found["nonzero"]) == (765, 18 + 360 + 9)
    assert found["dense_bytes"] == 4 * 765 and found["bytes"] == (5 + 4 * 18) + (90 + 4 * 360) + 4 * 9
    assert (found["latency"]["batch"], found["latency"]["repeats"]) == (3, 20)
    assert found["peak_memory_bytes"] >= 4 * (4 * 4 * 36 + 765)  # activations and gradients of a batch of four


def test_measuring_leaves_the_model_as_it_is() -> None:
    task, model = ready(TASK), build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    costs(task, model, threads=1)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_zeros_of_the_initialisation_are_no_masked_work() -> None:
    task = ready(dataclasses.replace(CONV, model=zeroed))
    plan = sc.prune(conv(), "magnitude", sparsity=0.5).plan
    assert masked_work(task, plan) == (36 * 36 + 720, 18 * 36 + 360)


def zeroed() -> nn.Module:
    model = Conv()
    nn.init.zeros_(model.head.weight)
    return model


def test_what_a_model_is_called_with() -> None:
    for source, args, named in [
        ({"test": images()["test"]}, 1, set()),
        ({"test": (torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(4))}, 2, set()),
        ({"example": lambda n: {"x": torch.zeros(n, 1)}, "test": 3}, 0, {"x"}),
        ({"example": lambda n: torch.zeros(n, 1), "test": 3}, 1, set()),
        ({"test": [{"ids": torch.zeros(2), "labels": torch.ones(1)}] * 3}, 0, {"ids", "labels"}),
    ]:
        task = ready(dataclasses.replace(CONV, data=lambda source=source: {"train": (torch.zeros(9),), **source}))
        found = use(task, 2)
        assert found is not None and len(found[0]) == args and set(found[1]) == named
        assert all(len(value) == 2 for value in (*found[0], *found[1].values()))


def test_a_model_that_does_not_take_the_examples_says_what_to_do() -> None:
    flat = {"train": (torch.zeros(9),), "test": (torch.zeros(3, 2), torch.zeros(3))}
    task = ready(dataclasses.replace(CONV, data=lambda: flat))
    with pytest.raises(BadInput, match=r"task 'conv': the model does not take an example .*give data\['example'\]"):
        work_of(task, conv())


@pytest.mark.parametrize("allocation", ["uniform", "global", "lamp"])
@pytest.mark.parametrize("point", [Point(sparsity=0.5), Point(sparsity=0.9), Point(compression=3), Point(sparsity=0.0)])
def test_no_allocation_takes_more_bytes_than_promised(point: Point, allocation: str) -> None:
    from secateurs.comparing.running.masking import amount_of

    task, most = ready(CONV), most_bytes(ready(CONV), point)
    settings: dict[str, Any] = amount_of(point)
    pruned = sc.prune(task.fresh(1), "magnitude", allocation=allocation, **settings).model
    assert stored_bytes(pruned.state_dict()) <= most <= payload_bytes(pruned)


def test_stored_bytes_count_a_tied_weight_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert stored_bytes(model.state_dict()) == 64
    with torch.no_grad():
        model[0].weight[1:] = 0
    assert stored_bytes(model.state_dict()) == 2 + 16
