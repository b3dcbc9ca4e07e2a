"""The harness's measurements run, on tasks made small, and the page says what they found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import overhead, page, reading
from benchmarks.tasks import digits
from secateurs.comparing.spec import Task

TINY = Task("tiny", digits.perceptron, digits.data, 60, batch=64, optimizer=overhead._SGD)


def test_both_ways_train_the_same_network_alike() -> None:
    by_hand, by_harness = overhead.by_hand(TINY), overhead.by_harness(TINY)
    assert by_hand > 0.7 and by_harness > 0.7  # other batches of the same data, so close but not equal


def test_overhead_counts_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "TASKS", {"tiny": TINY})
    found = overhead.overhead("tiny", repeats=2, steps=3)
    assert [len(s) for s in found["seconds"].values()] == [2, 2] and found["steps"] == 3
    assert found["ratio_low"] <= found["ratio_median"] <= found["ratio_high"]


def test_too_small_a_results_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(ValueError, match="0 finished runs, not 200"):
        reading.read_and_render(source=tmp_path / "results.jsonl")


def _ratios(median: float) -> dict[str, Any]:
    return {"ratio_median": median, "ratio_low": median - 0.01, "ratio_high": median + 0.01, "cpus": 2}


def test_page_says_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "harness.json"
    with pytest.raises(ValueError, match=r"benchmarks\.harness\.run"):
        page.section(path)
    found = {"overhead x": {"task": "x", "steps": 3000, "batch": 9, "repeats": 5, **_ratios(1.012)},
             "jobs": {"task": "x", **_ratios(1.85)},
             "report": {"runs": 200, "inside_median_s": 1.234, "command_median_s": 2.345}}  # fmt: skip
    path.write_text(json.dumps(found))
    said = page.section(path)
    assert "x, 3,000 steps of 9: a run of the harness takes 1.012 times (1.002 to 1.022)" in said
    assert "finish 1.85 times (1.84 to 1.86) as fast" in said and "written in 1.23 s" in said and "takes 2.35 s" in said
    path.write_text(json.dumps({"report": found["report"]}))
    assert "jobs" not in page.section(path)
