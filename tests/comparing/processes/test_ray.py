"""Runs on a real Ray cluster of two nodes on this machine: the same rows as in worker processes."""

import importlib
import io
import json
import os
import sys

import pytest
from rich.console import Console

from secateurs.comparing.harness import compare
from secateurs.comparing.processes.on_ray import work_on_ray
from secateurs.errors import BadInput, MissingExtra

MODULE = """
import os
import time
from dataclasses import dataclass

import torch
from torch import nn


def build():
    return nn.Linear(6, 3)


def load():
    drawn = torch.randn(96, 6, generator=torch.Generator().manual_seed(1))
    classes = drawn[:, :3].argmax(1)
    return {"train": (drawn[:64], classes[:64]), "test": (drawn[64:], classes[64:])}


@dataclass(frozen=True)
class Job:
    name: str
    needs: tuple = ()
    does: str = ""
    function: object = None


def execute(job, folder, tell):
    if job.does == "raises":
        raise ValueError("no such thing")
    if job.does == "exits":
        os._exit(7)
    tell(job.name, 3, 3)
    time.sleep(0.3 if job.does == "waits" else 0)
    return {"name": job.name, "node": os.environ.get("RAY_NODE_ID") or os.getppid(), "here": os.getcwd()}


def failed(job, error, seconds):
    return {"name": job.name, "error": f"{type(error).__name__}: {error}"}
"""
TASK = {"name": "toy", "model": "toys_of_ray:build", "data": "toys_of_ray:load", "steps": 4, "batch": 16, "dense": {"steps": 4}}
RECIPE = {"name": "c", "seeds": 1, "sparsities": [0.5], "tasks": [TASK],
          "methods": ["magnitude", {"protocol": "scratch-e", "of": "magnitude"}]}  # fmt: skip


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A module that lies on the driver's path alone."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "toys_of_ray.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield importlib.import_module("toys_of_ray")
    sys.path.remove(str(folder))
    del sys.modules["toys_of_ray"]


@pytest.fixture(scope="module")
def cluster(toys):
    """The address of a running cluster of two nodes of one CPU each."""
    pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    paths = os.pathsep.join(entry for entry in sys.path if "modules" not in entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", paths)  # secateurs is installed on the nodes; the user's module is not
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster.address
        cluster.shutdown()


@pytest.mark.slow
def test_a_comparison_has_the_rows_that_worker_processes_give(toys, cluster, tmp_path):
    quiet = Console(file=io.StringIO())
    compare(RECIPE, out=tmp_path / "ray", ray=cluster, console=quiet)
    compare(RECIPE, out=tmp_path / "workers", console=quiet)
    assert lasting(tmp_path / "ray") == lasting(tmp_path / "workers")
    assert not list((tmp_path / "ray").glob(".shared*"))


def lasting(out):
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in row.items() if key not in ("seconds", "latency", "versions")} for row in rows]
    assert len(kept) == 5 and {row["status"] for row in kept} == {"done"}
    return sorted(kept, key=lambda row: row["run"])


@pytest.mark.slow
def test_both_nodes_work_and_whatever_befalls_a_run_is_its_row(toys, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    fates = {f"waits {n}": "waits" for n in range(6)} | {"raises": "raises", "exits": "exits"}
    jobs = [toys.Job(name, (), does) for name, does in fates.items()]
    jobs += [toys.Job("after", ("exits",)), toys.Job("next", ("waits 1",))]
    functions = {"execute": toys.execute, "failed": toys.failed, "tell": lambda *said: told.append(said)}
    rows = {row["name"]: row for row in work_on_ray(jobs, tmp_path, address=cluster, **functions)}
    assert rows["raises"]["error"] == "ValueError: no such thing"
    assert rows["exits"]["error"].startswith("Crashed: Ray lost this run: WorkerCrashedError")
    assert rows["after"]["error"] == "NeedFailed: its run exits failed"
    fine = [row for row in rows.values() if "error" not in row]
    assert len(fine) == 7 and len({row["node"] for row in fine}) == 2 and {row["here"] for row in fine} == {str(tmp_path)}
    assert {name for name, _, _ in told} <= {row["name"] for row in fine} and told


@pytest.mark.slow
def test_a_folder_that_the_nodes_do_not_see_is_refused(toys, cluster, tmp_path, monkeypatch):
    from secateurs.comparing.processes import on_ray

    monkeypatch.setattr(on_ray, "_marked", lambda folder: _elsewhere(folder))
    run = work_on_ray([toys.Job("a")], tmp_path, address=cluster, execute=toys.execute, failed=toys.failed)
    with pytest.raises(BadInput, match=r"does not see .*file system that all nodes of the cluster share"):
        list(run)


class _elsewhere:
    """The mark of a folder that is not the driver's."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        return self.folder / "not here"

    def __exit__(self, *_):
        return None


@pytest.mark.slow
def test_where_no_cluster_answers_is_said(toys, tmp_path):
    pytest.importorskip("ray")
    run = work_on_ray([toys.Job("a")], tmp_path, address="127.0.0.1:1", execute=toys.execute, failed=toys.failed)
    with pytest.raises(BadInput, match=r"ray='127\.0\.0\.1:1': no Ray cluster there .* or 'local'"):
        list(run)


def test_functions_of_no_module_are_refused(toys, tmp_path):
    pytest.importorskip("ray")
    job = toys.Job("a", (), "", lambda: None)
    with pytest.raises(BadInput, match=r"ray='local': run a cannot be handed to another process"):
        work_on_ray([job], tmp_path, address="local", execute=toys.execute, failed=toys.failed)


def test_without_ray_its_extra_is_named(toys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"secateurs\[ray\]"):
        work_on_ray([], tmp_path, address="local", execute=toys.execute, failed=toys.failed)
