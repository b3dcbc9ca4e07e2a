"""A run killed with SIGKILL at any moment and resumed from its last checkpoint ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("resume")

RAMP = {"sparsity": 0.8, "begin": 4, "end": 16, "every": 4}
KILLS = [
    [2, "stepped"],  # before the first checkpoint
    [6, "written"],  # the checkpoint lies beside the old one
    [8, "backward"],  # on the ramp, just before an update
    [11, "stepped"],  # between two updates
    [12, "saved"],  # just after an update and its checkpoint
    [18, "written"],  # the masks are frozen
]
CASES: list[dict[str, Any]] = [
    {"name": "keep", "recipe": RAMP, "optimizer": "momentum", "kills": KILLS},
    {"name": "overwrite", "recipe": {**RAMP, "enforcement": "overwrite"}, "optimizer": "adam", "kills": KILLS[2:5]},
    {"name": "straight-through", "optimizer": "momentum", "kills": KILLS[2:],
     "recipe": {**RAMP, "enforcement": "straight-through"}},
    {"name": "layerwise", "recipe": {**RAMP, "options": {"order": "layerwise"}}, "optimizer": "adam", "kills": KILLS[1:5]},
    {"name": "straight-through-layerwise", "optimizer": "momentum", "kills": KILLS[2:4],
     "recipe": {**RAMP, "enforcement": "straight-through", "options": {"order": "layerwise"}}},
    {"name": "global", "recipe": {**RAMP, "options": {"order": "global"}}, "optimizer": "momentum", "kills": KILLS[3:5]},
    {"name": "histogram", "optimizer": "momentum", "kills": KILLS[2:],
     "recipe": {**RAMP, "options": {"threshold": "histogram"}}},
    {"name": "from-the-start", "attach_first": True, "optimizer": "momentum", "kills": KILLS[:3],
     "recipe": {"sparsity": 0.6, "schedule": "one-shot", "begin": 0, "enforcement": "overwrite"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, run in one process that has imported the library once and forks the children that are killed."""
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    where = tmp_path_factory.mktemp("resume")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).parent / "scripts" / "resume.py"
    command = [sys.executable, str(script), str(where), json.dumps(CASES)]
    done = subprocess.run(command, env=environment, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return where


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_killed_and_resumed_to_the_same_bits(folder: Path, case: dict[str, Any]) -> None:
    here = folder / case["name"]
    ends = json.loads((here / "signals.json").read_text())
    assert ends == [0, *[-signal.SIGKILL] * len(case["kills"]), 0], "every child but the first and the last was killed"
    whole, killed = (torch.load(here / f"{name}.pt", weights_only=True) for name in ("whole", "killed"))
    for part in whole:
        assert same(whole[part], killed[part]), part
    removed = sum(int((~mask).sum()) for mask in whole["masks"].values())
    share = removed / sum(mask.numel() for mask in whole["masks"].values())
    if case["name"] == "histogram":
        assert whole["state"]["smoothed"].keys() == whole["masks"].keys() and 0 < share < 0.8
    else:
        assert share == pytest.approx(case["recipe"]["sparsity"], abs=0.01)


def test_the_runs_differ_from_case_to_case(folder: Path) -> None:
    """So that equal bits mean something."""
    ends = [torch.load(folder / case["name"] / "whole.pt", weights_only=True)["stored"]["7.weight"] for case in CASES]
    assert not any(torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


# -- without a process ------------------------------------------------------------------------------------------------------


def session(**more: Any) -> tuple[nn.Module, torch.optim.Optimizer, sc.Pruner]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, sc.Pruner(model, "gmp", **{"sparsity": 0.7, "begin": 2, "end": 8, "every": 3, **more})


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for t in range(first, last):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
@pytest.mark.parametrize("attach", ["before", "after"])
@pytest.mark.parametrize("cut", range(11))
def test_resumed_after_any_step_attached_before_or_after(cut: int, attach: str, variant: str) -> None:
    model, optimizer, pruner = session(enforcement=variant)
    pruner.attach(optimizer)
    steps(model, optimizer, 0, cut)
    saved = [model.state_dict(), optimizer.state_dict(), pruner.state_dict()]
    saved = torch.utils._pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, saved)
    steps(model, optimizer, cut, 11)

    twin, its, again = session(enforcement=variant)
    if attach == "before":
        again.attach(its)
    for thing, state in zip((twin, its, again), saved, strict=True):
        thing.load_state_dict(state)
    if attach == "after":
        again.attach(its)
    assert again.step_count == cut
    steps(twin, its, cut, 11)
    assert same(pruner.state_dict(), again.state_dict())
    assert same(model.state_dict(), twin.state_dict())
    assert pruner.average_density == again.average_density
    assert [row["step"] for row in again.history] == [2, 5, 8]


def test_loading_zeroes_what_is_masked_when_it_is_overwritten() -> None:
    """A pruner that loads its masks into a model with other weights enforces them at once, not from the next step on."""
    _, optimizer, pruner = session(enforcement="overwrite", schedule="one-shot", begin=0, end=None)
    state = pruner.attach(optimizer).state_dict()
    twin, its, again = session(enforcement="overwrite", schedule="one-shot", begin=0, end=None)
    again.attach(its)
    with torch.no_grad():
        for p in twin.parameters():
            p.fill_(1.0)
    again.load_state_dict(state)
    assert [int((twin[i].weight == 0).sum()) for i in (0, 2)] == [34, 22]
