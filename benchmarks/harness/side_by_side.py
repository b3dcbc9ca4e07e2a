"""Two single-threaded runs, one after the other and side by side: wall time of each, the starting of processes included."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness.overhead import EVERY, SPARSITY, TASKS
from secateurs.comparing.processes.workers import work
from secateurs.comparing.running.execute import execute, failed
from secateurs.comparing.spec import Arm, Point, Run

__all__ = ["side_by_side"]


def side_by_side(name: str = "cifar10-resnet8", repeats: int = 3, steps: int | None = None) -> dict[str, Any]:
    """Seconds with one and with two processes, in turns, and what they say of each other."""
    task = TASKS[name] if steps is None else replace(TASKS[name], steps=steps)
    arm = Arm("gmp", settings={"method": "gmp", "begin": 0.1, "end": 0.65, "every": EVERY})
    runs = [Run("jobs", task, arm, Point(sparsity=SPARSITY), seed) for seed in (0, 1)]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for jobs in seconds:
            seconds[jobs].append(_seconds(runs, jobs))
    ratios = sorted(one / two for one, two in zip(*seconds.values(), strict=True))
    return {"task": name, "steps": task.steps, "runs": len(runs), "seconds": {str(j): s for j, s in seconds.items()},
            "ratio_median": statistics.median(ratios), "ratio_low": ratios[0], "ratio_high": ratios[-1]}  # fmt: skip


def _seconds(runs: list[Run], jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        rows = list(work(runs, Path(folder), execute=execute, failed=failed, jobs=jobs))
        seconds = time.perf_counter() - began
    if any(row["status"] != "done" for row in rows):
        raise RuntimeError(f"a run failed: {rows}")
    return seconds
