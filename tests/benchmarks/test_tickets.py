"""The experiments on tickets, at the size of a toy: complete rows, and a killed run that repeats none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from benchmarks.methods import ap, lottery_rewind, tickets
from benchmarks.tasks.pictures import Pictures


def data() -> dict[str, Pictures]:
    draw = np.random.default_rng(0)

    def split(count: int) -> Pictures:
        return Pictures(draw.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8), draw.integers(0, 3, count), (0.5,), (0.5,))

    return {"train": split(64), "validation": split(16), "test": split(32)}


TOY = tickets.Setting(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)), data, 10, 8, 0.1)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tickets.SETTINGS, "lenet", TOY)
    monkeypatch.setattr(ap, "ROUNDS", 2)


def test_rewinding_gives_errors_distances_and_instabilities() -> None:
    row = lottery_rewind.run({"task": "lenet", "rewind": 0.2, "seed": 0})
    assert len(row["errors"]) == 4 and row["remaining"] == pytest.approx([1, 0.585, 0.342, 0.2], abs=3e-3)
    assert row["magnitude"]["error"] == row["errors"][-1]  # the ticket that was trained last
    for measures in (row["magnitude"], row["random"]):
        assert measures["pruning_l2"] > 0 and measures["order_l2"] > 0 and 0 < measures["order_angle"] < 180
        assert 0 <= measures["instability"] <= 1


def test_ap_and_the_pruner_it_is_added_to_keep_as_many() -> None:
    found = {arm: ap.run({"task": "lenet", "arm": arm, "seed": 0})["by_round"] for arm in ap.ARMS}
    shares = [[row["remaining"] for row in rows] for rows in found.values()]
    assert shares[0] == shares[1] == shares[2] == pytest.approx([1, 0.8, 0.64], abs=3e-3)
    assert found["X"][0] == found["X + AP"][0] and all(0 <= row["dynamic"] <= 1 for row in found["X + AP"])


def test_a_killed_experiment_repeats_no_row(tmp_path: Path) -> None:
    ran: list[int] = []

    def run(trial: dict[str, Any]) -> dict[str, Any]:
        if trial["seed"] == 2 and not ran.count(2):
            ran.append(2)
            raise KeyboardInterrupt
        ran.append(trial["seed"])
        return {"found": trial["seed"] * 10}

    trials = [{"seed": seed} for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        tickets.record(tmp_path, trials, run)
    tickets.record(tmp_path, trials, run)
    assert ran == [0, 1, 2, 2, 3]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["found"]) for row in rows] == [(0, 0), (1, 10), (2, 20), (3, 30)]
