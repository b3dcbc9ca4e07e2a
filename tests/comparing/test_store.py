"""Finished rows are never lost: whatever cuts the file, whoever else wants it, whatever is in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.comparing.spec import SCHEMA, Arm, Comparison, Point, Task, plain
from secateurs.comparing.store import Results, read_rows
from secateurs.errors import BadInput, NotFinite


def row(run, value=0.5, status="done", **more):
    return {"schema": SCHEMA, "run": run, "status": status, "task": "t", "arm": "a", "value": value, **more}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "results.jsonl"


def test_rows_come_back_and_the_last_of_a_run_counts(path):
    with Results(path) as results:
        for one in (row("a", 0.1), row("b", 0.2), row("a", 0.3)):
            results.append(one)
        assert results.rows == [row("b", 0.2), row("a", 0.3)]
    assert read_rows(path) == ([row("b", 0.2), row("a", 0.3)], [])
    assert Results(path, write=False).done() == {"a": row("a", 0.3), "b": row("b", 0.2)}
    assert len(path.read_text().splitlines()) == 3


def test_a_failure_does_not_undo_what_was_done_but_is_undone_by_it(path):
    with Results(path) as results:
        for one in (row("a", 1), row("a", status="failed"), row("b", status="failed"), row("b", 2), row("c", status="failed")):
            results.append(one)
        assert [(r["run"], r["status"]) for r in results.rows] == [("a", "done"), ("b", "done"), ("c", "failed")]
        assert list(results.done()) == ["a", "b"]
    assert read_rows(path)[0] == Results(path, write=False).rows == results.rows


ROWS = [row("a", 0.25), row("b", "ü ☃"), row("c", {"x": [1, None]})]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "results.jsonl"
    with Results(path) as results:
        for one in ROWS:
            results.append(one)
    return path.read_bytes()


def test_cut_at_any_byte_what_was_before_is_read_and_what_follows_is_not_lost(whole, tmp_path):
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "results.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        before = ROWS[: sum(end <= cut for end in ends)]  # a row without its line end is still a whole row
        torn = cut not in (0, *ends) and cut - 1 not in ends
        with Results(path) as results:
            assert results.rows == before
            assert len(results.warnings) == torn
            results.append(row("new"))
            assert results.rows == [*before, row("new")]
        assert path.read_bytes().startswith(whole[:cut])
        rows, warnings = read_rows(path)
        assert rows == [*before, row("new")]
        says = [f"results.jsonl: line {len(before) + 1} is not a whole row (cut off?): its run will be done again"]
        assert warnings == says * torn


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 60)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_history_of_writes_and_crashes_keeps_every_row_that_was_confirmed(tmp_path_factory, history):
    """After each append the tail of a further, half-written row is left behind."""
    path = tmp_path_factory.mktemp("history") / "results.jsonl"
    latest = {}
    for number, (run, fails, torn) in enumerate(history):
        one = row(run, number, "failed" if fails else "done")
        with Results(path) as results:
            results.append(one)
        if not fails or latest.get(run, one)["status"] == "failed":
            latest.pop(run, None)
            latest[run] = one
        with path.open("ab") as stream:
            stream.write(json.dumps(row("torn")).encode()[:torn])
    if history:
        assert read_rows(path)[0] == list(latest.values())


def test_a_damaged_line_in_the_middle_costs_only_itself(path):
    path.parent.mkdir()
    first, last = json.dumps(row("a")).encode(), json.dumps(row("c")).encode()
    lines = [first, b'{"run": "b", "status": "do', b"", b"\xff\xfe\0", b"[1]", last]
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows, warnings = read_rows(path)
    assert [r["run"] for r in rows] == ["a", "c"]
    assert [w.partition(" is not")[0] for w in warnings] == [f"results.jsonl: line {n}" for n in (2, 4, 5)]


def test_zeros_that_a_power_cut_leaves_are_a_cut(path):
    path.parent.mkdir()
    path.write_bytes(b"\0" * 512)
    with Results(path) as results:
        assert results.rows == [] and len(results.warnings) == 1
        results.append(row("a"))
    assert read_rows(path)[0] == [row("a")]


@pytest.mark.parametrize("text", ["# Title\n\nwords\n", "[1, 2]\n", "run,value\na,1\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(path, text):
    path.parent.mkdir()
    path.write_text(text)
    for open_it in (read_rows, Results):
        with pytest.raises(BadInput, match=r"results\.jsonl' is not a results file: none of its \d lines is the row of a run"):
            open_it(path)
    assert path.read_text() == text


def test_files_that_are_not_there(path):
    with pytest.raises(BadInput, match=r"results file .*results\.jsonl' cannot be read"):
        read_rows(path)
    with pytest.raises(BadInput, match="cannot be read"):
        Results(path, write=False)
    assert not path.parent.exists()
    assert Results(path).rows == []
    with pytest.raises(BadInput, match="cannot be written"):
        Results(path / "below")


NAN, INFINITE = float("nan"), float("-inf")


@pytest.mark.parametrize(("bad", "place"), [(NAN, "value is nan"), ({"x": [1.0, INFINITE]}, r"value\.x\.1 is -inf")])
def test_what_is_no_number_is_refused_with_its_place(path, bad, place):
    with Results(path) as results:
        with pytest.raises(NotFinite, match=f"run 'a': {place}; its row is not written"):
            results.append(row("a", bad))
        assert results.rows == [] and path.read_bytes() == b""


def test_what_cannot_be_appended(path):
    with Results(path) as results:
        with pytest.raises(BadInput, match="names its run and its status, but found only value"):
            results.append({"value": 1})
    results.close()
    with pytest.raises(BadInput, match="reading only"):
        results.append(row("a"))


def test_one_writer_at_a_time_and_readers_as_many(path):
    with Results(path) as results:
        results.append(row("a"))
        with pytest.raises(BadInput, match=r"results\.jsonl' is being written by another comparison"):
            Results(path)
        assert Results(path, write=False).rows == read_rows(path)[0] == [row("a")]
    with Results(path) as again:
        assert again.rows == [row("a")]


def test_the_lock_goes_with_its_process(path):
    code = f"""
import os
from secateurs.comparing.store import Results
results = Results({str(path)!r})
results.append({row("a")!r})
os._exit(9)  # killed: nothing is closed
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")})
    assert done.returncode == 9
    with Results(path) as results:
        assert results.rows == [row("a")]


def comparison(**changed):
    task = Task("t", "m:build", "m:load", 10, **changed)
    return Comparison("c", (task,), (Arm("a", settings={"method": "magnitude"}),), (Point(0.5),))


def of_task(**changed):
    return row("r", determined_by={"task": plain(comparison(**changed).tasks[0])})


def test_rows_of_another_schema_are_refused(path):
    with Results(path) as results:
        results.append({**row("a"), "schema": SCHEMA + 1})
        with pytest.raises(BadInput, match=rf"rows of schema {SCHEMA + 1} \(run 'a'\); this .* schema {SCHEMA}; .*--out"):
            results.check(comparison())
    with pytest.raises(BadInput, match="rows of schema"):
        read_rows(path)


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ({"metric": "loss"},
         r"measures task 't' by loss \(lower is better\) on test, this comparison by top-1 \(higher is better\)"),
        ({"metric": "m:f", "direction": "lower"}, r"by m:f \(lower is better\) on test"),
        ({"evaluate_on": "validation"}, r"by top-1 \(higher is better\) on validation, .* on test; choose another folder"),
    ],
)  # fmt: skip
def test_rows_that_measure_a_task_otherwise_are_refused(path, theirs, says):
    with Results(path) as results:
        results.append(of_task(**theirs))
        with pytest.raises(BadInput, match=says):
            results.check(comparison())


def test_other_settings_and_a_direction_that_goes_without_saying_are_no_conflict(path):
    with Results(path) as results:
        results.append(of_task(direction="higher", batch=7))
        results.append({**of_task(metric="loss"), "task": "another", "run": "x"})
        results.check(comparison())


def test_rows_of_something_else_are_refused(path):
    with Results(path) as results:
        results.append({"schema": SCHEMA, "run": "s", "status": "done", "study": "oracle"})
        with pytest.raises(BadInput, match=r"is not of a comparison \(run 's'\); choose another folder"):
            results.check(comparison())
