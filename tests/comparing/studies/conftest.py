"""Rows of an oracle study as it writes them, with numbers chosen by hand."""

import pytest

SETTINGS = {"schema": 1, "study": "oracle", "task": {"name": "digits"}, "layers": [], "seed": 0, "examples": None,
            "needs": ["start"], "threads": 1}  # fmt: skip


def make_start_row():
    return {"schema": 1, "run": "start", "status": "done", "protocol": "start", "task": "digits", "value": 0.95, "steps": 300}


def make_cell_row(kept, repeat, before, value, after, **others):
    return {
        "schema": 1, "run": f"cell-{kept}-{repeat}", "status": "done", "study": "oracle", "name": "tiny", "task": "digits",
        "set": [list(kept)],
        "repeat": repeat, "seed": 0, "loss_before": before, "value": value, "loss_after": after,
        "metric": "top-1", "direction": "higher", "percent": True, "split": "test", "steps": 60,
        "inherited_steps": 300, "start": 0.95, "tests_on_training_data": False, "batch": 32, "examples": None,
        "population": 10, "layers": [{"name": "conv1.weight", "rows": 5, "kept": 2}], "threads": 1,
        "versions": {"torch": "2"}, "determined_by": {**SETTINGS, "kept": [list(kept)], "repeat": repeat}, **others,
    }  # fmt: skip


def make_failed_row(name):
    return {"schema": 1, "run": name, "status": "failed", "study": "oracle", "name": "tiny", "task": "digits", "set": [[0, 4]],
            "repeat": 0, "determined_by": {},
            "error": {"type": "NotFinite", "message": "the loss is nan", "traceback": ""}}  # fmt: skip


@pytest.fixture
def start_row():
    return make_start_row


@pytest.fixture
def cell_row():
    return make_cell_row


@pytest.fixture
def failed_row():
    return make_failed_row


@pytest.fixture
def study_rows():
    """Five sets, two repeats: the oracle (0, 1) ends third; means of the metric 0.90, 0.93, 0.92, 0.88, 0.85."""
    numbers = {(0, 1): (0.5, 0.90), (0, 2): (0.6, 0.93), (0, 3): (0.7, 0.92), (1, 2): (0.9, 0.88), (1, 3): (1.4, 0.85)}
    cells = [make_cell_row(kept, repeat, before, value + (0.01 if repeat else -0.01), 1 - value)
             for kept, (before, value) in numbers.items() for repeat in (0, 1)]  # fmt: skip
    return [make_start_row(), *cells]
