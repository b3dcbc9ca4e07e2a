"""Whole comparisons on a network of 36 weights: what is run, kept, tried again, warned of; killed and gone on with."""

import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from secateurs.comparing.harness import compare
from secateurs.comparing.store import Results
from secateurs.errors import BadInput

MODULE = '''
import time

import torch
from torch import nn


def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


class Slow:
    """A split whose every batch takes a while."""

    def __init__(self, *tensors, pause):
        self.tensors, self.pause = tensors, pause

    def __len__(self):
        return len(self.tensors[0])

    def batch(self, index):
        time.sleep(self.pause)
        return tuple(t[index] for t in self.tensors)


def load(pause=0.0):
    drawn = torch.randn(160, 6, generator=torch.Generator().manual_seed(1))
    classes = drawn[:, :3].argmax(1)
    return {"train": Slow(drawn[:96], classes[:96], pause=pause), "test": (drawn[96:], classes[96:])}
'''
TASK = {"name": "toy", "model": "toys_of_harness:build", "data": "toys_of_harness:load", "steps": 10, "batch": 16,
        "dense": {"steps": 12}, "optimizer": {"lr": 0.05}}  # fmt: skip
RECIPE = {"name": "c", "seeds": 2, "sparsities": [0.5], "methods": ["magnitude", {"protocol": "scratch-e", "of": "magnitude"}]}
VOLATILE = ("seconds", "latency", "versions")


def recipe(task=None, **changes):
    return {**RECIPE, **changes, "tasks": [{**TASK, **(task or {})}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of ``toys_of_harness.py``, which spawned processes find too."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "toys_of_harness.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("toys_of_harness", None)


def quiet():
    return Console(file=io.StringIO(), width=200)


def read(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def lasting(rows):
    """Of every run what must not depend on the day, in the order of the names."""
    kept = [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows]
    return sorted(kept, key=lambda row: row["run"])


def accuracy_here(model, split):
    """Accuracy. Wrapped in a function that no other process has it keeps the runs in this one."""
    inputs, classes = split.batch(torch.arange(len(split)))
    return (model(inputs).argmax(1) == classes).double().mean()


@pytest.fixture(scope="module")
def here(folder, tmp_path_factory):
    """A finished comparison made in this process, quickly: what was asked, its folder, its outcome, what was printed."""
    out, console = tmp_path_factory.mktemp("out"), quiet()
    asked = recipe({"metric": lambda model, split: accuracy_here(model, split), "direction": "higher"})
    return asked, out, compare(asked, out=out, console=console), console.file.getvalue()


def test_every_run_is_a_row_and_the_baselines_are_there(here):
    _, out, outcome, printed = here
    rows = read(out)
    assert {(row["arm"], row["point"]) for row in rows} == {
        ("start", None), ("dense", None), ("random", "50 %"), ("magnitude", "50 %"), ("scratch-e of magnitude", "50 %"),
    }  # fmt: skip
    assert len(rows) == 10 == printed.count("\n") and {row["status"] for row in rows} == {"done"}
    assert outcome.failures == [] and len(outcome.rows) == 10 and {row["seed"] for row in outcome.rows} == {0, 1}
    assert "magnitude" in outcome.table().plain()


def test_what_is_done_is_not_run_again(here, tmp_path):
    asked, out, _, _ = here
    out = shutil.copytree(out, tmp_path / "out")
    before, console = (out / "results.jsonl").read_bytes(), quiet()
    outcome = compare(asked, out=out, console=console)
    assert (out / "results.jsonl").read_bytes() == before and console.file.getvalue() == ""
    assert len(outcome.rows) == 10


def test_what_a_new_run_needs_is_made_again_where_it_is_gone(here, tmp_path):
    asked, out, _, _ = here
    out = shutil.copytree(out, tmp_path / "out")
    shutil.rmtree(out / "weights")
    shutil.rmtree(out / "masks")
    methods = [*asked["methods"], {"protocol": "rewound", "of": "magnitude"}]
    more = compare({**asked, "methods": methods}, out=out, console=quiet())
    added = [row["arm"] for row in read(out)[10:]]
    assert sorted(added) == ["magnitude", "magnitude", "rewound of magnitude", "rewound of magnitude", "start", "start"]
    assert lasting(read(out)[10:])[0] in lasting(read(out)[:10]) and len(more.rows) == 12


def test_a_failed_run_is_a_row_the_rest_goes_on_and_it_is_tried_again(folder, tmp_path):
    broken = {"now": True}

    def metric(model, split):
        if broken["now"] and int((model[0].weight == 0).sum()) == 12:  # half of 24 are zero: the pruned ones
            raise RuntimeError("cannot look")
        return accuracy_here(model, split)

    asked = recipe({"metric": metric, "direction": "higher"}, seeds=1)
    outcome = compare(asked, out=tmp_path, console=quiet())
    assert sorted(row["arm"] for row in outcome.rows) == ["dense", "start"]
    errors = {row["arm"]: row["error"] for row in outcome.failures}
    assert {arm: error["type"] for arm, error in errors.items()} == {
        "magnitude": "RuntimeError", "random": "RuntimeError", "scratch-e of magnitude": "NeedFailed"}  # fmt: skip
    assert errors["magnitude"]["message"] == "cannot look" and "in metric" in errors["magnitude"]["traceback"]
    broken["now"] = False
    outcome = compare(asked, out=tmp_path, console=quiet())
    assert len(outcome.rows) == 5 and outcome.failures == []
    assert [row["status"] for row in read(tmp_path)].count("done") == 5


def test_a_metric_that_is_no_number_is_a_failed_row_that_says_so(folder, tmp_path):
    asked = recipe({"metric": lambda model, split: float("nan"), "direction": "higher"}, seeds=1)
    outcome = compare(asked, out=tmp_path, console=quiet())
    assert outcome.rows == []
    kinds = {(row["error"]["type"], "toy" in row["error"]["message"]) for row in outcome.failures if row["arm"] == "start"}
    assert kinds == {("NotFinite", True)}


def test_code_that_changed_since_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "changing_toys.py"
    module.write_text(MODULE)
    metric = {"metric": lambda model, split: accuracy_here(model, split), "direction": "higher"}
    asked = recipe({"model": "changing_toys:build", "data": "changing_toys:load", **metric}, seeds=1, methods=["magnitude"])
    assert not any("changed" in text for text in compare(asked, out=tmp_path / "out", console=quiet()).warnings)
    module.write_text(MODULE + "\n# another thought\n")
    console = quiet()
    outcome = compare(asked, out=tmp_path / "out", console=console)
    assert [text.partition(" has changed")[0] for text in outcome.warnings] == [
        "task 'toy': the file of its model function", "task 'toy': the file of its data function"]  # fmt: skip
    assert "set the task's version to 2" in console.file.getvalue() and len(read(tmp_path / "out")) == 4


def test_what_cannot_work_is_said_before_anything_runs(folder, tmp_path):
    out, widths = tmp_path / "out", iter(range(3, 99))
    for task, said in (
        ({"model": "toys_of_harness:bild"}, "did you mean 'build'"),
        ({"data": "toys_of_harnes:load"}, "no module 'toys_of_harnes'"),
        ({"model": lambda: torch.nn.Sequential(torch.nn.Linear(6, next(widths)))}, "not deterministic"),
        ({"model": lambda: 3}, "must return a torch.nn.Module"),
    ):
        with pytest.raises(BadInput, match=said):
            compare(recipe(task), out=out, console=quiet())
        assert read(out) == []
    with pytest.raises(BadInput, match=r"jobs=2 .*'local'"):
        compare(recipe(), out=out, jobs=2, ray="local")


def test_two_comparisons_do_not_write_one_file(here, tmp_path):
    with Results(tmp_path / "results.jsonl"), pytest.raises(BadInput, match=r"results\.jsonl"):
        compare(here[0], out=tmp_path, console=quiet())


def test_rows_of_another_schema_are_refused_and_kept(here, tmp_path):
    line = '{"schema": 0, "run": "a", "status": "done"}\n'
    (tmp_path / "results.jsonl").write_text(line)
    with pytest.raises(BadInput, match="schema 0"):
        compare(here[0], out=tmp_path, console=quiet())
    assert (tmp_path / "results.jsonl").read_text() == line


KILLED = {"data_options": {"pause": 0.02}}


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    outcome = compare(recipe(KILLED), out=out, console=quiet())
    return lasting(read(out)), outcome.markdown()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads processes from /proc")
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGKILL], pytest.param([signal.SIGINT, *[signal.SIGKILL] * 3], marks=pytest.mark.slow)],
    ids=["killed once", "interrupted and killed three times"],
)
def test_killed_at_any_moment_it_comes_to_the_same_rows(signals, folder, undisturbed, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(recipe(KILLED)))  # JSON is YAML
    command = [sys.executable, "-m", "secateurs.cli", "compare", "c.json", "--out", "out", "--jobs", "2"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    draw, results = torch.Generator().manual_seed(len(signals)), tmp_path / "out" / "results.jsonl"
    for number in signals:
        before = results.read_bytes() if results.exists() else b""
        process = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, stderr=subprocess.PIPE)
        while process.poll() is None and not (results.exists() and results.stat().st_size > len(before)):
            time.sleep(0.01)
        time.sleep(float(torch.rand((), generator=draw)) * 0.5)
        if process.poll() is None:
            os.killpg(process.pid, number)
        _, said = process.communicate()
        if number == signal.SIGINT:
            assert process.returncode == 130 and b"interrupted; finished runs are kept" in said and b"Traceback" not in said
        assert results.read_bytes().startswith(before) and not _left_in_session(process.pid)
    outcome = compare(recipe(KILLED), out=tmp_path / "out", jobs=2, console=quiet())
    assert lasting(outcome.rows) == undisturbed[0] and outcome.markdown() == undisturbed[1]
    assert not list((tmp_path / "out").glob("state/*.pt"))


def _left_in_session(leader):
    """Processes of the session that ``leader`` began, zombies not counted; they are given a moment to end."""
    deadline = time.monotonic() + 20
    while left := [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and _session(pid) == leader]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def _session(process):
    try:
        state, _, _, session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)
