"""A shrunk model that is an exported program can be used as any module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.apply import shrink, verify_shrunk
from secateurs.apply.masking import masked_model
from secateurs.errors import BadInput
from secateurs.graph import trace
from secateurs.train.reestimate import reestimate
from tests.apply import shrinkable as nets

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Padded(nn.Module):
    """A shortcut padded with zero channels, as no smaller module of this code could pad it; with a norm and dropout."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.conv, self.head = nn.Conv2d(8, 16, 3, 1, 1), nn.Linear(16, 5)
        self.drop, self.fixed = nn.Dropout(0.5), fixed
        self.norm.running_mean.uniform_(-1, 1)
        self.eval()

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.conv(x)) + F.pad(x, (0, 0, 0, 0, 4, 4))
        x = x.mean((2, 3))
        return self.head(self.drop(x.view(2, -1) if self.fixed else x))


def shrunk(fixed=False):
    model = Padded(fixed)
    graph = trace(model, X)
    keeps = nets.keep(graph, drop=2)
    done = shrink(model, graph, keeps)
    assert done.is_exported
    return model, graph, keeps, done


def test_modes_work_and_names_stay():
    model, _, _, done = shrunk()
    program = done.model
    assert program.state_dict().keys() == model.state_dict().keys()
    assert isinstance(program.norm, nn.BatchNorm2d) and not program.norm.training
    resting = program(X)
    program.train()
    assert not torch.equal(program(X), resting)  # dropout, and the batch's own statistics
    assert program.norm.num_batches_tracked == 1
    program.eval()
    assert torch.equal(program(X), program(X))


def test_it_is_trained_and_its_norms_are_measured_anew():
    program = shrunk()[3].model
    before = program.norm.running_mean.clone()
    assert reestimate(program, [X, X + 1]) == 2
    inputs = program.stem.weight, program.stem.bias
    expected = torch.stack([F.conv2d(x, *inputs, padding=1).mean((0, 2, 3)) for x in (X, X + 1)]).mean(0)
    assert torch.allclose(program.norm.running_mean, expected, atol=1e-5) and not torch.equal(before, expected)
    program(X).square().mean().backward()
    assert all(p.grad is not None for p in program.parameters())


def test_other_batches_are_taken_where_two_came_out_right():
    model, graph, keeps, done = shrunk()
    assert done.model(torch.randn(5, 3, 8, 8)).shape == (5, 5)
    assert copy.deepcopy(done.model)(X[:1]).shape == (1, 5)
    checks = verify_shrunk(model, done, graph, keeps).checks
    assert checks[-1].name.endswith("on a batch of 3") and checks[-1].ok
    with pytest.raises(BadInput, match="takes batches of"):
        done.model(torch.randn(2, 3, 9, 9))


@pytest.mark.parametrize("example", [X, (X,), {"x": X}], ids=["tensor", "tuple", "mapping"])
def test_other_batches_are_taken_however_the_example_was_written(example):
    model, more = Padded(), torch.randn(5, 3, 8, 8)
    graph = trace(model, example)
    keeps = nets.keep(graph, drop=2)
    done = shrink(model, graph, keeps, example=example)
    found = done.model(x=more) if isinstance(example, dict) else done.model(more)
    expected = masked_model(model, graph, keeps)(more)
    assert done.is_exported and torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, model(more), atol=1e-2)


def test_a_batch_size_in_the_code_stays():
    """``view(2, -1)`` runs on four rows too, and would mix them."""
    model, graph, keeps, done = shrunk(fixed=True)
    with pytest.raises(RuntimeError):
        done.model(torch.randn(4, 3, 8, 8))
    assert verify_shrunk(model, done, graph, keeps).ok
