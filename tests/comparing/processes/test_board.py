import io

import pytest
from rich.console import Console

from secateurs.comparing.processes.board import Board, label, outcome_line
from secateurs.comparing.processes.timeleft import TimeLeft
from secateurs.comparing.spec import Arm, Dense, Point, Run, Task

FAST = Task("fast", "nets:build", "nets:load", steps=100, dense=Dense(200))
SLOW = Task("slow", "nets:build", "nets:load", steps=100)


def run(task, seed=0):
    return Run("c", task, Arm("gmp"), Point(0.9), seed)


def done(run, **changes):
    row = {"run": run.name, "status": "done", "metric": "top-1", "percent": True, "value": 0.97321, "seconds": {"total": 12.34}}
    return {**row, **changes}


def failed(run):
    error = {"type": "ValueError", "message": "no [bold]such[/bold] thing\nat all", "traceback": "..."}
    return {"run": run.name, "status": "failed", "error": error, "seconds": {"total": 0.5}}


def test_time_left_is_by_task_and_shared_by_those_that_run_at_a_time():
    left = TimeLeft(dict.fromkeys("abcd", 100), {"a": "fast", "b": "fast", "c": "slow", "d": "slow"}, jobs=2)
    assert left.seconds() is None
    left.tell("a", 50, 100, now=1000.0)  # goes on from step 50: not yet a pace
    assert left.seconds() is None
    left.tell("a", 60, 100, now=1001.0)  # 0.1 s a step; 40 + 3 x 100 steps are left
    assert left.seconds() == pytest.approx(17)
    left.tell("c", 1, 100, now=0.0)
    left.tell("c", 2, 100, now=1.0)  # 1 s a step: 4 + 10 + 98 + 100 s on two
    assert left.seconds() == pytest.approx(106)
    for over in "abc":
        left.done(over)
    assert left.seconds() == pytest.approx(100)  # one run cannot be shared


def drawn(act, terminal):
    runs = [run(FAST), run(SLOW)]
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    with Board(console, runs, 2) as board:
        act(board, runs)
    return console.file.getvalue()


def test_without_a_terminal_there_is_a_line_for_every_run():
    def act(board, runs):
        board.tell(runs[0].name, 1, 100)
        board.over(done(runs[0]))
        board.tell(runs[0].name, 2, 100)  # too late
        board.over(failed(runs[1]))

    assert drawn(act, terminal=False) == (
        "[1/2] fast · gmp · 90 % · seed 0: top-1 97.32 % in 12.3 s\n"
        "[2/2] slow · gmp · 90 % · seed 0: FAILED after 0.5 s: ValueError: no [bold]such[/bold] thing\n"
    )


def test_in_a_terminal_runs_under_way_have_their_steps_and_failures_stay():
    def act(board, runs):
        board.tell(runs[0].name, 25, 100)
        board._progress.refresh()
        board.over(failed(runs[1]))

    text = drawn(act, terminal=True)
    assert "fast · gmp · 90 % · seed 0" in text and "step 25 of 100" in text and "0 of 2 done" in text
    assert "FAILED after 0.5 s: ValueError: no [bold]such[/bold] thing" in text and "1 failed" in text


def test_words_for_a_run_and_for_what_came_of_it():
    dense = Run("c", FAST, Arm("dense", "dense"), None, 3)
    assert label(dense) == "fast · dense · seed 3"
    assert outcome_line(done(dense, metric="perplexity", percent=False, value=123.4567)) == "perplexity 123.46 in 12.3 s"
