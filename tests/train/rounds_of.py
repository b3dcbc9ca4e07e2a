"""A network that trains in milliseconds, round after round, for the tests of :class:`secateurs.Rounds`."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import secateurs as sc
from tests.papers.networks import batches

STEPS = 8


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    """With a batch norm and dropout, so that statistics and random states matter: 144 + 48 = 192 weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 4)).to(dtype)


class Loop:
    """Trains every round with a new optimizer and a schedule, and can be killed at any step of any round."""

    def __init__(self, method: str = "lottery", dtype: torch.dtype = torch.float32, model: nn.Module | None = None,
                 scheduled: bool = True, **settings: Any):  # fmt: skip
        self.dtype, self.scheduled = dtype, scheduled
        self.model = model or network(dtype)
        self.initial = copy.deepcopy(self.model.state_dict())
        self.rounds = sc.Rounds(self.model, method, **settings)
        self.starts: list[dict[str, Tensor]] = []
        self.masks: list[dict[str, Tensor]] = []
        self.saved: io.BytesIO | None = None

    def run(self, kill: tuple[int, int] | None = None, look: Callable[[Any], None] | None = None) -> Loop:
        """All rounds; at step ``kill[1]`` of round ``kill[0]`` everything is saved and the loop is left."""
        state = None if self.saved is None else torch.load(self.saved, weights_only=True)
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.rounds.load_state_dict(state["rounds"])
        for each in self.rounds:
            optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
            each.attach(optimizer, schedule if self.scheduled else None)
            self.starts.append(copy.deepcopy(self.model.state_dict()))
            self.masks.append({name: mask.clone() for name, mask in self.rounds.masks.items()})
            if state is not None:
                optimizer.load_state_dict(state["optimizer"])
                schedule.load_state_dict(state["schedule"])
                torch.set_rng_state(state["random"])
                state = None
            elif each.first_step == 0:
                torch.manual_seed(5)
            if look is not None:
                look(each)
            for step in range(each.first_step, STEPS):
                if kill == (each.number, step):
                    self.saved = io.BytesIO()
                    torch.save({"model": self.model.state_dict(), "rounds": self.rounds.state_dict(),
                                "random": torch.get_rng_state(), "optimizer": optimizer.state_dict(),
                                "schedule": schedule.state_dict()}, self.saved)  # fmt: skip
                    self.saved.seek(0)
                    return self
                x, y = batches(STEPS, self.dtype)[step]
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(x), y)
                loss.backward()
                optimizer.step()
                schedule.step()
                each.record(float(loss.detach()), number=float(each.number))
        return self


def dense_run(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The uninterrupted training of the same network."""
    model = network(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    torch.manual_seed(5)
    for x, y in batches(STEPS, dtype):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    return model.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """To the bit, all of them."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
