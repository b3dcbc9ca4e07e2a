"""Snapshots: all of a training's state, kept, saved and set back to the bit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, CorruptFile
from secateurs.train.snapshots import Snapshot, Snapshots
from tests.papers.networks import batches
from tests.train.rounds_of import network, same


def trained(steps: int, adam: bool = True) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    model = network()
    kind = torch.optim.AdamW if adam else torch.optim.SGD
    optimizer = kind(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    torch.manual_seed(3)
    go(model, optimizer, schedule, 0, steps)
    return model, optimizer, schedule


def go(model, optimizer, schedule, first: int, last: int) -> None:
    for x, y in batches(10)[first:last]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()


def test_a_file_of_it_brings_a_fresh_training_to_the_same_end(tmp_path: Path) -> None:
    model, optimizer, schedule = trained(4)
    shuffler = torch.Generator().manual_seed(9)
    torch.rand(3, generator=shuffler)
    Snapshot.take(4, model, optimizer, schedule, shuffler).save(tmp_path / "step4.safetensors")
    drawn = (torch.rand(2, generator=shuffler), random.random(), float(np.random.rand()))
    np.random.seed(0)
    random.seed(0)
    fresh, its, course = trained(1)
    other = torch.Generator()
    found = Snapshot.load(tmp_path / "step4.safetensors")
    found.restore(fresh, its, course, other, randomness=True)
    assert found.step == 4 and torch.equal(torch.rand(2, generator=other), drawn[0])
    assert (random.random(), float(np.random.rand())) == drawn[1:]
    found.restore(fresh, its, course, randomness=True)
    go(fresh, its, course, 4, 8)
    whole, _, theirs = trained(8)
    assert same(fresh.state_dict(), whole.state_dict()) and course.get_last_lr() == theirs.get_last_lr()


def test_a_snapshot_is_not_moved_by_what_comes_after() -> None:
    model, optimizer, schedule = trained(2)
    taken = Snapshot.take(2, model, optimizer, schedule)
    before = {name: value.clone() for name, value in taken.model.items()}
    go(model, optimizer, schedule, 2, 5)
    taken.restore(model, optimizer)
    go(model, optimizer, schedule, 2, 5)
    assert same(taken.model, before)


def test_chosen_steps_are_kept_while_a_training_runs() -> None:
    model = network()
    store = Snapshots(model, [0, 2, 5])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    store.attach(optimizer, schedule)
    torch.manual_seed(1)
    go(model, optimizer, schedule, 0, 4)
    assert list(store) == [0, 2] and len(store) == 2
    assert store[2].schedule is not None and store[2].schedule["last_epoch"] == 2  # advanced after the second step
    again = Snapshots(model, [0, 2, 5])
    again.load_state_dict(store.state_dict())
    assert same(again[2].model, store[2].model) and again[0].optimizer is None
    store.detach()
    go(model, optimizer, schedule, 4, 6)
    assert 5 not in store  # nobody watches any more


def test_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    model, optimizer, schedule = trained(1)
    taken = Snapshot.take(1, model)
    with pytest.raises(BadInput, match=r"snapshot of step 1 is of another model: '0.weight'"):
        taken.restore(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(BadInput, match="no state of the optimizer: give optimizer= when it is taken"):
        taken.restore(model, optimizer)
    with pytest.raises(BadInput, match="no state of the schedule"):
        taken.restore(model, schedule=schedule)
    with pytest.raises(BadInput, match="there is no snapshot"):
        Snapshot.load(tmp_path / "none")
    (tmp_path / "torn").write_bytes(b"12345678{}")
    with pytest.raises(CorruptFile, match="torn"):
        Snapshot.load(tmp_path / "torn")
    with pytest.raises(BadInput, match="tensors and plain data, and this state has a set"):
        Snapshot(1, {}, data={1, 2}).save(tmp_path / "set")
    with pytest.raises(BadInput, match="no snapshot's state"):
        Snapshot.from_state_dict({"step": 1})
