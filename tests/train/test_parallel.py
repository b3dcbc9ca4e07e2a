"""``sc.prune(..., distributed=True)``: two and three gloo processes end with the same bits, and with what one process gets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput
from secateurs.train.walk import Inputs, Ranks
from tests.train.scripts.parallel import METHODS

ROOT = Path(__file__).parents[2]
AVAILABLE = dist.is_available() and dist.is_gloo_available() and hasattr(os, "fork")
needs_gloo = pytest.mark.skipif(not AVAILABLE, reason="needs gloo and fork")
pytestmark = pytest.mark.xdist_group("parallel")


class Runs:
    """What every process ended with, and what one by itself did."""

    def __init__(self, folder: Path, size: int):
        self.folder = folder
        self.ranks = [torch.load(folder / f"rank{i}.pt", weights_only=True) for i in range(size)]
        self.alone = torch.load(folder / "alone.pt", weights_only=True)


@pytest.fixture(scope="module", params=[2, 3])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    if not AVAILABLE:
        pytest.skip("needs gloo and fork")
    folder = tmp_path_factory.mktemp("parallel")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).parent / "scripts" / "parallel.py"), str(folder), str(request.param)]
    done = subprocess.run(command, env=environment, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Runs(folder, request.param)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """The same bits, masks and reports."""
    tensors = all(a[key].keys() == b[key].keys() and all(map(torch.equal, a[key].values(), b[key].values()))
                  for key in ("state", "masks"))  # fmt: skip
    return tensors and all(a[key] == b[key] for key in ("report", "left"))


@pytest.mark.parametrize("name", METHODS)
def test_all_end_with_the_same_bits_which_are_those_of_one_process_to_rounding(runs: Runs, name: str) -> None:
    first, alone = runs.ranks[0][name], runs.alone[name]
    assert all(same(first, rank[name]) for rank in runs.ranks[1:])
    assert first["masks"].keys() == alone["masks"].keys() and len(alone["masks"]) >= 6
    assert all(torch.equal(mask, alone["masks"][layer]) for layer, mask in first["masks"].items())
    assert 2 * sum(int((~mask).sum()) for mask in first["masks"].values()) == sum(m.numel() for m in first["masks"].values())
    for layer, value in first["state"].items():
        torch.testing.assert_close(value, alone["state"][layer], rtol=1e-4, atol=1e-5)
    assert first["left"] == alone["left"]
    assert not same(first, runs.alone["magnitude" if name != "magnitude" else "wanda"])


def test_an_input_that_no_batch_of_a_process_reaches_is_measured_by_the_others(runs: Runs) -> None:
    for name in ("wanda", "sparsegpt"):
        assert "layers.0.seldom.weight" in runs.ranks[0][name]["masks"]
        assert ("layers.1.never.weight", "no calibration token reached it") in runs.ranks[-1][name]["left"]


def test_statistics_in_float64_are_those_of_one_process(runs: Runs) -> None:
    alone = runs.alone["statistics"]
    assert len(alone) == 8 * (2 + 2 + 3)  # norms, gram, moments of eight weights, with their counts
    for rank in runs.ranks:
        assert rank["statistics"].keys() == alone.keys()
        for name, value in rank["statistics"].items():
            torch.testing.assert_close(value, alone[name], rtol=1e-12, atol=1e-12)
            assert torch.equal(value, runs.ranks[0]["statistics"][name])


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("loss", "RuntimeError", "KeyError: 'no such column'"),
        ("visit", "NotFinite", "a score of layer 7"),
        ("nan", "NotFinite", "the inputs of 'layers.0."),
        ("few", "BadInput", "1 calibration batches for"),
        ("batches", "BadInput", "other calibration than process 0"),
        ("settings", "BadInput", "other settings than process 0"),
    ],
)
def test_an_error_in_one_is_raised_in_all(runs: Runs, name: str, kind: str, words: str) -> None:
    raised = [rank["failures"][name] for rank in runs.ranks]
    for i, (found, text, notes) in enumerate(raised):
        at_its_place = name == "loss" and i == len(raised) - 1
        assert found == ("KeyError" if at_its_place else kind)
        assert at_its_place or words in text
        if name in ("loss", "visit"):
            assert notes == ([] if i == len(raised) - 1 else [f"This was raised in process {len(raised) - 1}."])


def test_one_that_dies_ends_the_others(runs: Runs) -> None:
    assert "death" not in runs.ranks[-1]
    for rank in runs.ranks[:-1]:
        kind, text, _ = rank["death"]
        assert kind == "Lost" and "another process is gone" in text


def test_a_killed_run_goes_on_from_the_first_ones_folder_and_ends_with_the_same_bits(runs: Runs) -> None:
    for i, rank in enumerate(runs.ranks):
        assert same(rank["resumed"], runs.ranks[0]["sparsegpt"])
        # a block was finished when it was killed; taken over, it has nothing to tell of its size: the next one has
        assert rank["resumed"]["numbers"] == [int(i == 0), 0, 3 * 12 * 16 + 12 * 12]
        assert (runs.folder / f"not-shared{i}").exists() is False


def test_the_folder_of_several_is_not_that_of_one(runs: Runs) -> None:
    kind, text, _ = runs.alone["resumed"]
    assert kind == "BadInput" and "differs in processes" in text


# -- one process


def test_without_a_group() -> None:
    with pytest.raises(BadInput, match="torchrun"):
        sc.prune(nn.Sequential(nn.Linear(4, 4)), "wanda", sparsity=0.5, calibration=[torch.ones(2, 4)], distributed=True)


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=(tmp_path / "meeting").as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@needs_gloo
@pytest.mark.usefixtures("group_of_one")
def test_a_group_of_one_is_no_group(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6)), torch.randn(9, 8)
    plain = sc.prune(model, "sparsegpt", sparsity=0.5, calibration=[x], state=tmp_path / "state")
    again = sc.prune(model, "sparsegpt", sparsity=0.5, calibration=[x], state=tmp_path / "state", distributed=True)
    assert all(map(torch.equal, plain.model.state_dict().values(), again.model.state_dict().values()))


@given(size=st.integers(1, 9), more=st.integers(0, 40))
def test_shares_are_neighbours_that_cover_all(size: int, more: int) -> None:
    shares = [Ranks(rank, size).share(size + more) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(size + more))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_processes_than_batches() -> None:
    with pytest.raises(BadInput, match="2 calibration batches for 3 processes"):
        Ranks(1, 3).share(2)


def test_inputs_are_sent_and_merged() -> None:
    def seen(*rows: list[float]) -> Inputs:
        inputs = Inputs.empty(["norms", "gram"], 1, 2, torch.float64, torch.device("cpu"))
        inputs.update(0, torch.tensor(rows), None, None)
        return inputs

    here, there = seen([1.0, 2.0]), seen([3.0, 0.0], [0.0, 1.0])
    here.merge(Inputs.from_state_dict(there.state_dict()))
    assert here.tokens == (3,)
    assert here["norms"][0].squares.tolist() == [10.0, 5.0]  # type: ignore[attr-defined]
    assert here["gram"][0].gram.tolist() == [[10.0, 2.0], [2.0, 5.0]]  # type: ignore[attr-defined]
