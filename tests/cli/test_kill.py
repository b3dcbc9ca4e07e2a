"""The real command, killed outright (SIGKILL) at any moment: given again it goes on, and ends with the same bits."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from secateurs.measure.process import anonymous_bytes
from tests.cli.killing import Command, finished, same, write_model

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.skipif(anonymous_bytes() is None, reason="needs Linux")

SPARSEGPT = ("--method", "sparsegpt", "--sparsity", "0.5")
CASES = {
    "sparsegpt": SPARSEGPT,
    "sparsegpt in files": (*SPARSEGPT, "--memory", "8GB"),
    "wanda in files": ("--method", "wanda", "--structure", "2:4", "--memory", "8GB"),
    "gblm": ("--method", "gblm", "--sparsity", "0.5"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a text."""
    made = tmp_path_factory.mktemp("kill")
    write_model(made)
    return made


def undisturbed(command: Command, out: str) -> float:
    """Run it whole; the seconds from its first block to its end."""
    process = command.start(out)
    while not finished(command.folder, out) and process.poll() is None:
        time.sleep(0.005)
    began = time.monotonic()
    assert process.wait(300) == 0, (command.folder / f"{out}.log").read_text()
    return time.monotonic() - began


def check_done(folder: Path, out: str, whole: str) -> None:
    assert same(folder / out, folder / whole)
    assert not (folder / f"{out}.partial").exists()
    kept = {path.name for path in (folder / whole).iterdir()}
    assert {path.name for path in (folder / out).iterdir()} == kept


def test_one_kill(folder: Path) -> None:
    command = Command(folder, *SPARSEGPT)
    command.run("whole")
    assert command.killed("pruned", lambda: finished(folder, "pruned") >= 2, 0)
    state = json.loads((folder / "pruned.partial" / "walk.json").read_text())["finished"]
    assert 2 <= len(state) < 8 and not (folder / "pruned").exists()
    kept = (folder / "pruned.partial" / state[0]["file"]).stat().st_mtime_ns
    command.run("pruned")
    check_done(folder, "pruned", "whole")
    assert kept and (folder / "pruned.log").read_text().count("taken over") == len(state)  # and not pruned again


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_five_kills_at_random_moments(case: str, tmp_path: Path) -> None:
    """After the first block of each start, within an eighth of what all the work takes."""
    write_model(tmp_path, hidden_size=256, intermediate_size=768)
    command, moments, out = Command(tmp_path, *CASES[case]), random.Random(case), tmp_path / "pruned"
    span = undisturbed(command, "whole")
    for _ in range(5):
        before = finished(tmp_path, "pruned")
        delay = moments.uniform(0, span / 8)
        assert command.killed("pruned", lambda before=before: finished(tmp_path, "pruned") > before, delay)
        assert json.loads((tmp_path / "pruned.partial" / "walk.json").read_text())["finished"]
        assert not out.exists() or same(out, tmp_path / "whole")
    command.run("pruned")
    check_done(tmp_path, "pruned", "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", ["sparsegpt", "wanda in files"])
def test_kills_while_files_are_written(case: str, tmp_path: Path) -> None:
    """Right at the start of the state, between a block's file and the list of blocks, and while OUT is written and proved."""
    write_model(tmp_path, hidden_size=256, intermediate_size=768)
    command, state, out = Command(tmp_path, *CASES[case]), tmp_path / "pruned.partial", tmp_path / "pruned"
    command.run("whole")
    signs = [
        state.exists,
        lambda: (state / "masks-00001.safetensors").exists(),
        lambda: (state / "block-00002.safetensors").exists(),
        lambda: any(state.glob(".block-00004.safetensors.*")),
        lambda: any(tmp_path.glob(".pruned.*.partial")),
        lambda: any(tmp_path.glob(".pruned.*.partial/*.safetensors")),
        out.exists,
    ]
    for sign in signs:
        assert command.killed("pruned", sign, 0), "it was done before it could be killed"
        assert not out.exists() or (sign == out.exists and same(out, tmp_path / "whole"))
    command.run("pruned")
    check_done(tmp_path, "pruned", "whole")
    assert not list(tmp_path.glob(".pruned.*")), "what killed writers have left behind is gone"
