import importlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from secateurs.comparing.processes.jobs import bound_to_this_process
from secateurs.comparing.processes.waiting import Waiting
from secateurs.comparing.processes.worker import sparingly
from secateurs.comparing.processes.workers import work
from secateurs.errors import BadInput
from secateurs.measure.mode import computing_with

MODULE = """
import os, signal, sys, time
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Job:
    name: str
    needs: tuple = ()
    does: str = ""
    function: object = None


def execute(job, folder, tell):
    act(job.does)
    for step in range(1, 4):
        tell(job.name, step, 3)
    return {"name": job.name, "process": os.getpid(), "threads": torch.get_num_threads()}


def act(does):
    if does == "raises":
        raise ValueError("no such thing")
    if does == "leaves":
        sys.exit(4)
    if does == "exits":
        os._exit(7)
    if does == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "is faulty":
        os.kill(os.getpid(), signal.SIGSEGV)
    if does == "prints":
        os.write(1, b"from compiled code\\n")
        print("from Python")
    if does == "sleeps":
        time.sleep(60)


def failed(job, error, seconds):
    return {"name": job.name, "error": f"{type(error).__name__}: {error}"}
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A module of jobs that spawned processes find too."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "toys_of_workers.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("toys_of_workers")
    sys.path.remove(str(folder))
    del sys.modules["toys_of_workers"]


@pytest.fixture(scope="module")
def mixed(toys, tmp_path_factory):
    """Jobs of every fate, two at a time: the folder, what was told and the rows by name."""
    folder, told = tmp_path_factory.mktemp("mixed"), []
    fates = ["raises", "leaves", "exits", "is killed", "is faulty", "prints", "goes well"]
    jobs = [toys.Job(does, (), does) for does in fates]
    jobs += [toys.Job("after", ("is killed",)), toys.Job("long after", ("after",))]
    jobs += [toys.Job("next", ("goes well", "elsewhere"))]
    run = partial(work, execute=toys.execute, failed=toys.failed, jobs=2, tell=lambda *said: told.append(said))
    return folder, told, {row["name"]: row for row in run(jobs, folder)}


def test_whatever_befalls_a_run_is_its_row_and_the_rest_goes_on(mixed):
    _, _, rows = mixed
    assert {name: row["error"] for name, row in rows.items() if "error" in row} == {
        "raises": "ValueError: no such thing",
        "leaves": "SystemExit: 4",
        "exits": f"Crashed: the process of this run ended with exit code 7; what it printed: {Path('logs/exits.txt')}",
        "is killed": "Crashed: the process of this run ended by signal SIGKILL (out of memory?); "
                     f"what it printed: {Path('logs/is killed.txt')}",
        "is faulty": f"Crashed: the process of this run ended by signal SIGSEGV; what it printed: {Path('logs/is faulty.txt')}",
        "after": "NeedFailed: its run is killed failed",
        "long after": "NeedFailed: its run after failed",
    }  # fmt: skip
    assert {"prints", "goes well", "next"} == {name for name, row in rows.items() if "error" not in row}
    assert all(row["process"] != os.getpid() and row["threads"] == 1 for row in rows.values() if "error" not in row)


def test_what_a_run_prints_is_kept_beside_the_results_and_a_fault_leaves_its_trace(mixed, capfd):
    logs = mixed[0] / "logs"
    assert (logs / "prints.txt").read_text() == "from compiled code\nfrom Python\n"
    assert "Segmentation fault" in (logs / "is faulty.txt").read_text()
    assert not (logs / "goes well.txt").exists()


def test_the_last_step_of_every_run_is_told(mixed):
    assert {name for name, step, steps in mixed[1] if step == steps == 3} == {"prints", "goes well", "next"}


def test_no_process_is_left(mixed):
    assert multiprocessing.active_children() == []


def test_stopping_ends_the_processes_at_once(toys, tmp_path):
    rows = work([toys.Job("quick"), toys.Job("long", (), "sleeps")], tmp_path, execute=toys.execute, failed=toys.failed, jobs=2)
    assert next(rows)["name"] == "quick"
    assert multiprocessing.active_children() != []
    start = time.monotonic()
    rows.close()
    assert multiprocessing.active_children() == [] and time.monotonic() - start < 30


def test_a_script_without_a_guard_is_not_run_again_by_its_workers(toys, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        print("once")
        from pathlib import Path
        from secateurs.comparing.processes.workers import work
        from toys_of_workers import Job, execute, failed
        print([row["name"] for row in work([Job("a")], Path("."), execute=execute, failed=failed)])
    """)
    )
    path = os.pathsep.join([str(Path(toys.__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert (done.stdout.decode().split("\n"), done.stderr.decode()) == (["once", "['a']", ""], "")


def test_here_runs_are_made_in_this_process(toys, tmp_path):
    jobs = [toys.Job("a"), toys.Job("b", (), "raises"), toys.Job("c", ("b",)), toys.Job("d", (), "leaves")]
    with computing_with(2):
        rows = list(work(jobs, tmp_path, execute=toys.execute, failed=toys.failed, here=True))
        assert torch.get_num_threads() == 2
    assert rows[0] == {"name": "a", "process": os.getpid(), "threads": 1}
    assert [row["error"].partition(":")[0] for row in rows[1:]] == ["ValueError", "NeedFailed", "SystemExit"]


def test_an_interrupt_is_not_a_failed_run(toys, tmp_path):
    def interrupted(run, folder, tell):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(work([toys.Job("a")], tmp_path, execute=interrupted, failed=toys.failed, here=True))


def test_functions_of_no_module_are_run_here_or_refused(toys, tmp_path):
    jobs = [toys.Job("a", (), "", lambda: None)]
    (row,) = work(jobs, tmp_path, execute=toys.execute, failed=toys.failed)
    assert row["process"] == os.getpid()
    with pytest.raises(BadInput, match=r"jobs=2: run a cannot be handed to another process \(.*<lambda>.*use jobs=1"):
        work(jobs, tmp_path, execute=toys.execute, failed=toys.failed, jobs=2)


def test_functions_of_a_script_are_bound_to_it(toys, monkeypatch):
    assert bound_to_this_process(toys.Job("a", (), "", toys.act)) == ""
    monkeypatch.setattr(toys.act, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "act", toys.act, raising=False)
    assert pickle.dumps(toys.act)  # pickle has no objection
    assert "act is defined in a script" in bound_to_this_process(toys.Job("a", (), "", toys.act))


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_process_is_not_enough(jobs, tmp_path):
    with pytest.raises(BadInput, match=f"jobs={jobs}"):
        work([], tmp_path, execute=len, failed=len, jobs=jobs)


def test_no_runs_no_rows(tmp_path):
    assert list(work([], tmp_path, execute=len, failed=len, jobs=2)) == []


@dataclass(frozen=True)
class Waiter:
    name: str
    needs: tuple[str, ...] = ()


def test_jobs_wait_for_what_they_need_and_stay_with_their_group():
    jobs = [Waiter("a1"), Waiter("b1"), Waiter("a2", ("a1",)), Waiter("b2"), Waiter("a3", ("a1", "b2"))]
    waiting = Waiting(jobs, group=lambda job: job.name[0])
    first = waiting.take()
    assert first == jobs[0]
    assert waiting.take(first) == jobs[1]  # nothing more of its group is ready
    waiting.done("a1")
    assert waiting.take(jobs[1]) == jobs[3] and waiting.take(jobs[1]) == jobs[2]
    assert waiting.take() is None and waiting
    waiting.done("b2")
    assert waiting.take() == jobs[4] and not waiting


def test_what_needs_a_failed_run_is_given_up_once_and_at_any_distance():
    jobs = [Waiter("a"), Waiter("b", ("a",)), Waiter("c", ("b", "a")), Waiter("d", ("c",)), Waiter("e")]
    waiting = Waiting(jobs)
    waiting.take()
    assert [(job.name, need) for job, need in waiting.failed("a")] == [("b", "a"), ("c", "b"), ("d", "c")]
    assert waiting.take() == jobs[4]


def test_progress_is_told_sparingly_and_the_end_always():
    told = []
    tell = sparingly(lambda *said: told.append(said), every=3600)
    for step in range(1, 101):
        tell("a", step, 100)
    assert told == [("a", 1, 100), ("a", 100, 100)]
