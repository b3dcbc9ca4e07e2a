"""Rounds under DistributedDataParallel, two gloo processes: the same masks on both, as in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

ROOT = Path(__file__).parents[2]
AVAILABLE = torch.distributed.is_available() and torch.distributed.is_gloo_available() and hasattr(os, "fork")
pytestmark = [pytest.mark.skipif(not AVAILABLE, reason="needs gloo and fork"), pytest.mark.xdist_group("distributed")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What rank 0, rank 1 and a single process ended with, by method."""
    folder = tmp_path_factory.mktemp("rounds")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).parent / "scripts" / "rounds_distributed.py"), str(folder)]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("rank0", "rank1", "alone")]


@pytest.mark.parametrize("method", ["lottery", "lottery-rewind", "sap", "ap"])
def test_the_same_masks_on_both_and_as_in_one_process(runs: list[dict[str, Any]], method: str) -> None:
    first, second, alone = (run[method] for run in runs)
    assert first["masks"].keys() == alone["masks"].keys() and len(alone["masks"]) == 3
    assert 0 < sum(int((~mask).sum()) for mask in first["masks"].values()) < 164
    for name, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][name]) and torch.equal(mask, alone["masks"][name])
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])
        torch.testing.assert_close(weight, alone["weights"][name])
