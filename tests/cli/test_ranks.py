"""``torchrun -m secateurs.cli prune ...``: all processes prune, one speaks, writes and fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import typer
from safetensors.torch import load_file

from secateurs.cli import ranks
from tests.cli.killing import write_model

SOURCE = str(Path(__file__).parents[2] / "src")
FLAGS = ("--calibration", "text.txt", "--samples", "8", "--length", "32", "--method", "sparsegpt", "--sparsity", "0.5")
pytestmark = [
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo"),
    pytest.mark.xdist_group("parallel"),
]


def prune_by_two(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "secateurs.cli", "prune", "model", *flags]
    environment = os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, timeout=240, capture_output=True, text=True)


@pytest.fixture
def model(here: Path) -> Path:
    pytest.importorskip("transformers")
    write_model(here, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    return here


def test_two_processes_write_and_say_what_one_does(model: Path, as_json: Callable[..., Any]) -> None:
    done = prune_by_two(model, *FLAGS, "--json", "--out", "by2")
    assert done.returncode == 0, done.stderr
    two, one = json.loads(done.stdout), as_json("prune", "model", *FLAGS, "--out", "by1")  # two that speak are no JSON
    assert done.stderr.count("block 2/2") == 1
    assert two["verified"]["ok"] and two["report"][-1]["removed"] == one["report"][-1]["removed"]
    masks = [load_file(model / out / "plan.safetensors") for out in ("by1", "by2")]
    assert masks[0].keys() == masks[1].keys() and all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert {"by1", "by2", "model"} <= {path.name for path in model.iterdir()}
    assert not list(model.glob("*.partial"))


@pytest.mark.slow
def test_one_tells_what_is_wrong(model: Path) -> None:
    done = prune_by_two(model, *FLAGS, "--blocks", "nowhere", "--out", "never")
    assert done.returncode != 0
    assert done.stderr.count("secateurs prune: ") == 1 and "'nowhere'" in done.stderr
    assert "exitcode  : 2" in done.stderr and not (model / "never").exists()


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # a cluster's own
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert ranks.processes() == 1
    ranks.leave_to_first()


def test_the_others_leave_when_they_have_done_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [{"input_ids": torch.arange(6).reshape(3, 2)}]
    for name, value in {"WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": "none", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    ranks.leave_to_first()
    assert [batch["input_ids"].tolist() for batch in ranks.for_all(batches) or ()] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert ranks.for_all(batches * 3) == batches * 3
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(typer.Exit):
        ranks.leave_to_first()
