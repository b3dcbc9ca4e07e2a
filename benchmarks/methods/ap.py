"""AP (Liu et al. 2022) beside the pruner it is added to, at equal amounts: accuracy, and how often ReLU units are silent.

``python -m benchmarks.methods.ap`` writes ``benchmarks/runs/methods/ap/results.jsonl``, a row per arm and seed; killed, it goes
on. Lottery tickets by global magnitude, 20 % a round for ten rounds, of which AP takes two points by movement; the control
takes them from positive weights. Shrunk: LeNet-300-100 on 5,000 digits and 600 steps a training, instead of a ResNet-20 and
39,000 steps. About six minutes of a core.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import secateurs as sc
from benchmarks.methods.tickets import SETTINGS, record, train
from secateurs.measure import dead_neurons

OUT = Path(__file__).parents[1] / "runs" / "methods" / "ap"
ROUNDS, RATE, SEEDS = 10, 0.2, 5
ARMS: dict[str, dict[str, Any]] = {"X": {"q": 0.0}, "X + AP": {"q": 0.02}, "X + positive": {"q": 0.02, "sign": "positive"}}


def trials() -> Iterator[dict[str, Any]]:
    """All of them, seed by seed."""
    for seed in range(SEEDS):
        for arm in ARMS:
            yield {"arm": arm, "seed": seed, "rounds": ROUNDS, "rate": RATE, "task": "lenet"}


def run(trial: dict[str, Any]) -> dict[str, Any]:
    """One row: remaining share, error and dead neuron rates of every round."""
    setting, found = SETTINGS[trial["task"]], []
    model = setting.model(trial["seed"])
    rounds = sc.Rounds(model, "ap", sparsity=1 - (1 - RATE) ** ROUNDS, rounds=ROUNDS,
                       options={"of": "global-magnitude", **ARMS[trial["arm"]]})  # fmt: skip
    for each in rounds:
        optimizer = setting.optimizer(model)
        each.attach(optimizer)
        train(setting, model, optimizer, each.first_step, 1_000 + trial["seed"])
        dead = dead_neurons(model, setting.batches("test", 2_000))
        found.append({"remaining": 1 - each.sparsity, "error": setting.error(model), "dynamic": dead.dynamic,
                      "static": dead.static})  # fmt: skip
    rounds.finish()
    return {"by_round": found}


if __name__ == "__main__":
    torch.set_num_threads(1)
    record(OUT, trials(), run)
