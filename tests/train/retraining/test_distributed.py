"""DistributedDataParallel, two gloo processes: both end with the same bits, and with what one process comes to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

import secateurs as sc
from secateurs.errors import BadInput
from tests.train.retraining.nets import pruned

ROOT = Path(__file__).parents[3]
AVAILABLE = torch.distributed.is_available() and torch.distributed.is_gloo_available() and hasattr(os, "fork")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What rank 0, rank 1 and a single process ended with, by what trained."""
    folder = tmp_path_factory.mktemp("retraining")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "train" / "scripts" / "retraining.py"), str(folder)]
    done = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("rank0", "rank1", "alone")]


@pytest.mark.skipif(not AVAILABLE, reason="needs gloo and fork")
@pytest.mark.xdist_group("distributed")
@pytest.mark.parametrize("way", ["biases", "mask-lora", "scale-lora", "lora-prune"])
def test_both_processes_agree_with_each_other_and_with_one(runs: list[dict[str, Any]], way: str) -> None:
    first, second, alone = (run[way] for run in runs)
    assert list(first) == list(alone) and len(alone) == 6
    for name, value in first.items():
        assert torch.equal(value, second[name])
        torch.testing.assert_close(value, alone[name])


def test_a_wrapped_model_is_refused() -> None:
    done = pruned()
    with pytest.raises(BadInput, match="the model is inside DataParallel, which would not see what trains: wrap it afterwards"):
        sc.Retraining(torch.nn.DataParallel(done.model), done.plan, parts=["norms"])
