"""Stabilised tickets (Frankle et al. 2019): accuracy and both stabilities against the step k that is gone back to, for the
masks of magnitude pruning and for random ones of the same counts.

``python -m benchmarks.methods.lottery_rewind`` writes ``benchmarks/runs/methods/lottery-rewind/results.jsonl``, a row per
network, k and seed; killed, it goes on. Shrunk: a ResNet-8 of 8 channels and 400 steps of 32 images instead of a ResNet-20
and 63,000 of 128; three rounds to 20 % left; k at 0, 5 and 20 % of training. LeNet-300-100 on 5,000 digits is the control in
which k should not matter. About ten minutes of a core.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateurs as sc
from benchmarks.methods.tickets import SETTINGS, Setting, record, train
from secateurs.comparing.running.masking import shuffled
from secateurs.measure import distance, segment
from secateurs.planning import Plan
from secateurs.train import Held
from secateurs.train.reestimate import reestimate

OUT = Path(__file__).parents[1] / "runs" / "methods" / "lottery-rewind"
SHARES, ROUNDS, SPARSITY, SEEDS = (0.0, 0.05, 0.2), 3, 0.8, 3
ORDER, OTHER = 1_000, 2_000  # data orders: these and the seed


def trials() -> Iterator[dict[str, Any]]:
    """All of them, seed by seed."""
    for seed in range(SEEDS):
        for task in SETTINGS:
            for share in SHARES:
                yield {"task": task, "rewind": share, "seed": seed, "rounds": ROUNDS, "sparsity": SPARSITY}


def run(trial: dict[str, Any]) -> dict[str, Any]:
    """One row: errors of every round, distances and instabilities at the end."""
    setting, seed = SETTINGS[trial["task"]], trial["seed"]
    model = setting.model(seed)
    rounds = sc.Rounds(model, "lottery-rewind", sparsity=SPARSITY, rounds=ROUNDS, rewind=trial["rewind"],
                       total_steps=setting.steps, exclude=setting.exclude)  # fmt: skip
    k = round(trial["rewind"] * setting.steps)
    store, errors, dense = sc.Snapshots(model, [k]), [], model
    for each in rounds:
        optimizer = setting.optimizer(model)
        each.attach(optimizer)
        if each.number == 0:
            store.attach(optimizer)
        train(setting, model, optimizer, each.first_step, ORDER + seed)
        errors.append(setting.error(model))
        dense = copy.deepcopy(model) if each.number == 0 else dense
    store.detach()
    plan = rounds.plan()
    return {"errors": errors, "remaining": [row["kept"] / row["size"] for row in rounds.report()],
            "magnitude": _stability(setting, rounds.finish(), dense, plan, store[k], seed),
            "random": _stability(setting, None, dense, shuffled(plan, seed), store[k], seed)}  # fmt: skip


def _stability(setting: Setting, first: nn.Module | None, dense: nn.Module, plan: Plan, start: sc.Snapshot, seed: int) -> Any:
    """Of the subnetwork ``plan`` from ``start``: distance to the dense training, and between two orders of the data."""
    first = first or _alone(setting, plan, start, ORDER + seed)
    second = _alone(setting, plan, start, OTHER + seed)
    pruning, order = distance(first, dense, plan.masks), distance(first, second, plan.masks)
    line = segment(first, second, setting.error, 4, lambda model: reestimate(model, setting.batches("train", 1_000)))
    return {"error": setting.error(first), "pruning_l2": pruning.l2, "pruning_angle": pruning.angle, "order_l2": order.l2,
            "order_angle": order.angle, "instability": line.instability}  # fmt: skip


def _alone(setting: Setting, plan: Plan, start: sc.Snapshot, order: int) -> nn.Module:
    """The subnetwork trained from ``start`` on."""
    model = setting.model(0)
    start.restore(model)
    plan.replay(model, undoable=False)
    optimizer = setting.optimizer(model)
    start.restore_course(optimizer)
    held = Held(model, plan).attach(optimizer)
    train(setting, model, optimizer, start.step, order)
    return held.finish()


if __name__ == "__main__":
    torch.set_num_threads(1)
    record(OUT, trials(), run)
