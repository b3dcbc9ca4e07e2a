import io

from rich.console import Console

from secateurs.demo.board import Board

ROW = {"model": "gmp-0.9-seed0-abc", "label": "sparse 90 %", "seed": 0, "accuracy": 0.98765, "bytes": 14864, "seconds": 5.04}


def console(terminal):
    return Console(file=io.StringIO(), width=100, force_terminal=terminal)


def test_a_log_gets_a_line_per_finished_run_and_none_for_a_skipped_one():
    out = console(terminal=False)
    with Board(out, total=2) as board:
        board.tell("gmp-0.9-seed0-abc", 600, 1200)
        board.done(ROW)
        board.done({**ROW, "label": "old"}, skipped=True)
    text = out.file.getvalue()
    assert "sparse 90 %, seed 0: accuracy 0.9877, 14,864 bytes, 5.0 s" in text
    assert "old" not in text


def test_bars_for_all_runs_and_those_under_way():
    board = Board(console(terminal=True), total=2)
    board.tell("gmp-0.9-seed0-abc", 600, 1200)
    board.tell("dense-24-seed0-def", 25, 1200)
    tasks = [(task.description, task.completed, task.total) for task in board._progress.tasks]
    assert tasks == [("all runs", 0, 2), ("gmp-0.9-seed0", 600, 1200), ("dense-24-seed0", 25, 1200)]
    board.done(ROW, skipped=True)
    board.tell("gmp-0.9-seed0-abc", 1200, 1200)  # overtaken by its own result
    assert [(task.description, task.completed) for task in board._progress.tasks] == [("all runs", 1), ("dense-24-seed0", 25)]
