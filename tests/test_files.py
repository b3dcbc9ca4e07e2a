"""Files are written whole or not at all, with ordinary permissions."""

import os
import stat
import subprocess
import sys

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.files import held_folder, remove_abandoned, write_whole


def test_a_file_is_replaced_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    write_whole(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_every_file_of_a_saved_folder_is_as_readable_as_any_new_file(tmp_path):
    pruned = sc.prune(nn.Linear(8, 8), "magnitude", sparsity=0.5)
    sc.save(pruned.model, tmp_path / "model", plan=pruned.plan, recipe=pruned.recipe)
    (tmp_path / "plain").touch()
    usual = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "model").iterdir()}
    assert {"weights.safetensors", "plan.safetensors", "plan.json", "secateurs.json"} <= modes.keys()
    assert set(modes.values()) == {usual}
    assert torch.equal(sc.load(tmp_path / "model", lambda: nn.Linear(8, 8)).weight, pruned.model.weight)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_a_folder_is_abandoned_when_nobody_holds_it(tmp_path):
    mine, theirs, killed = (tmp_path / name for name in ("mine", "theirs", "killed"))
    for folder in (mine, theirs, killed):
        folder.mkdir()
        (folder / "file").touch()
    holds = """import sys, pathlib, secateurs.files
with secateurs.files.held_folder(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()"""
    others = [subprocess.Popen([sys.executable, "-c", holds, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
              for folder in (theirs, killed)]  # fmt: skip
    assert all(other.stdout.read(1) for other in others)
    others[1].kill()
    others[1].wait()
    with held_folder(mine):
        remove_abandoned([mine, theirs, killed, tmp_path / "gone"])
        assert mine.is_dir() and theirs.is_dir() and not killed.exists()
    others[0].communicate(b"\n")
    remove_abandoned([mine, theirs])
    assert not list(tmp_path.iterdir())
