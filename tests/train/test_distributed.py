"""DistributedDataParallel, two gloo processes: the same masks on both, and not one message more than without a pruner."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from secateurs.core.count import removed_count

ROOT = Path(__file__).parents[2]
VARIANTS = ("keep", "overwrite", "straight-through", "rigl", "journey", "granet", "bip", "woodfisher")
IN_ALL = ("rigl", "journey", "granet", "bip", "woodfisher")  # which promise the total, not every layer's count
AVAILABLE = torch.distributed.is_available() and torch.distributed.is_gloo_available() and hasattr(os, "fork")
pytestmark = [pytest.mark.skipif(not AVAILABLE, reason="needs gloo and fork"), pytest.mark.xdist_group("distributed")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What rank 0, rank 1 and a single process ended with, by variant."""
    folder = tmp_path_factory.mktemp("distributed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).parent / "scripts" / "distributed.py"), str(folder)]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("rank0", "rank1", "alone")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_masks_on_both_and_as_in_one_process(runs: list[dict[str, Any]], variant: str) -> None:
    first, second, alone = (run[variant] for run in runs)
    assert first["masks"].keys() == alone["masks"].keys() and len(alone["masks"]) == 3
    for name, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][name]) and torch.equal(mask, alone["masks"][name])
        assert variant in IN_ALL or int((~mask).sum()) == removed_count(mask.numel(), 0.7)
    masks = first["masks"].values()
    assert sum(int((~mask).sum()) for mask in masks) == removed_count(sum(mask.numel() for mask in masks), 0.7)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])
        torch.testing.assert_close(weight, alone["weights"][name])


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant not in ("bip", "woodfisher")])
def test_no_extra_traffic(runs: list[dict[str, Any]], variant: str) -> None:
    """The same collectives, as often, on tensors of the same shapes."""
    for rank in runs[:2]:
        without = rank["dense"]["traffic"]
        assert without.count(("gloo:all_reduce", "[[185]]")) == 9, "all 185 gradients, once a step"
        assert rank[variant]["traffic"] == without


def test_bip_takes_the_mean_of_its_own_gradients_and_sends_nothing_else(runs: list[dict[str, Any]]) -> None:
    """The three weights' gradients, once a step; the masks on both follow, and have moved."""
    for rank in runs[:2]:
        more = Counter(rank["bip"]["traffic"]) - Counter(rank["dense"]["traffic"])
        sent = {shapes: count for (name, shapes), count in more.items() if name == "gloo:all_reduce"}
        assert sent == {"[[10, 6]]": 9, "[[8, 10]]": 9, "[[3, 8]]": 9}


def test_woodfisher_takes_the_mean_of_its_gradients_over_the_processes(runs: list[dict[str, Any]]) -> None:
    """Nine gradients of 164 weights at each of three updates."""
    for rank in runs[:2]:
        more = Counter(rank["woodfisher"]["traffic"]) - Counter(rank["dense"]["traffic"])
        assert {shapes: count for (name, shapes), count in more.items() if name == "gloo:all_reduce"} == {"[[164]]": 27}
