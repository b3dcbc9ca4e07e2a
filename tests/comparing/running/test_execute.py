"""A run and its row: the same bits however often it was killed, and every wrong task told by name."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secateurs.comparing.running import training as module
from secateurs.comparing.running.execute import execute, failed, stored
from secateurs.comparing.running.training import Training
from secateurs.comparing.spec import MASKED, Dense, Optimizer, Run
from secateurs.errors import BadInput, NotFinite
from tests.comparing.toys import GMP, HALF, TASK, build, data, masked, run, start, timeless, weights


class Killed(Exception):
    pass


def killed_often(it: Run, folder: Path, seed: int) -> dict[str, Any]:
    """Carry ``it`` out, ended by an exception at a random step again and again."""
    draw = random.Random(seed)
    while True:
        left = draw.randint(1, 6)

        def tell(name: str, step: int, steps: int) -> None:
            nonlocal left
            left -= 1
            if left == 0 and step < steps:
                raise Killed

        try:
            return execute(it, folder, tell)
        except Killed:
            assert (folder / "state" / f"{it.name}.pt").is_file()


RUNS = [
    start(),
    run("dense", point=None),
    run("small-dense"),
    run(method="magnitude"),
    run(method="taylor"),
    run(**GMP),
    run("iterative", rounds=3, method="random"),
    *(masked(protocol, run(method="magnitude")) for protocol in MASKED),
]


def test_rows_are_the_same_however_often_a_run_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {it.name: execute(it, tmp_path / "whole") for it in RUNS}
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module, "SAVE_SHARE", float("inf"))
    for i, it in enumerate(RUNS):
        row = killed_often(it, tmp_path / "killed", seed=i)
        assert timeless(row) == timeless(whole[it.name]), it.arm.name
    assert not list((tmp_path / "killed" / "state").iterdir())
    for name, value in weights(tmp_path / "whole", start().name).items():
        assert torch.equal(value, weights(tmp_path / "killed", start().name)[name])


def test_a_row_says_everything(tmp_path: Path) -> None:
    execute(start(), tmp_path)
    task = dataclasses.replace(TASK, evaluate_every=3)
    execute(start(task), tmp_path)
    it = run(task=task, method="magnitude")
    row = execute(it, tmp_path)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    wanted = {"schema": 1, "run": it.name, "status": "done", "comparison": "toys", "task": "toy", "protocol": "prune",
              "of": None, "method": "magnitude", "point": "50 %", "sparsity": 0.5, "seed": 0, "metric": "top-1",
              "direction": "higher", "percent": True, "split": "test", "tests_on_training_data": False, "steps": 9,
              "inherited_steps": 12, "batch": 16,
              "average_density": 0.5, "cost_steps": 16.5, "selected": 108, "kept": 54, "width": 12, "threads": 1,
              "multiply_adds": 54, "dense_multiply_adds": 108, "training_flops": 2.0 * 3 * 54 * 16 * 9,
              "layers": [{"name": "0.weight", "size": 72, "kept": 36}, {"name": "4.weight", "size": 36, "kept": 18}],
              "determined_by": it.determined_by()}  # fmt: skip
    assert {key: row[key] for key in wanted} == wanted
    assert [(entry["step"], entry["value"] is None) for entry in row["history"]] == [(3, False), (6, False), (9, False)]
    assert 0 <= row["value"] <= 1 and 0 <= row["before"] <= 1 and row["start"] == execute(start(task), tmp_path)["value"]
    assert row["latency"]["threads"] == 1 and row["latency"]["dense_median_s"] > 0 and row["peak_memory_bytes"] > 0
    assert row["versions"]["torch"] == torch.__version__ and set(row["code"]) == {"model", "data", "transform"}
    seconds = row["seconds"]
    assert sum(seconds[part] for part in ("training", "evaluation", "measuring")) <= seconds["total"]
    dense = execute(run("dense", task, None), tmp_path)
    assert (dense["sparsity"], dense["kept"], dense["cost_steps"], dense["point"]) == (None, 108, 21.0, None)


def test_a_failed_row() -> None:
    try:
        raise ZeroDivisionError("no reason")
    except ZeroDivisionError as error:
        row = failed(run(method="magnitude"), error, 1.5)
    assert json.loads(json.dumps(row)) == row and row["status"] == "failed" and row["seconds"] == {"total": 1.5}
    assert row["error"]["type"] == "ZeroDivisionError" and row["error"]["message"] == "no reason"
    assert "test_execute.py" in row["error"]["traceback"] and row["arm"] == "prune {'method': 'magnitude'}"


def test_what_is_stored(tmp_path: Path) -> None:
    first, pruned = start(), run(method="magnitude")
    assert not stored(first, tmp_path) and not stored(pruned, tmp_path) and stored(run("dense", point=None), tmp_path)
    execute(first, tmp_path)
    execute(pruned, tmp_path)
    assert stored(first, tmp_path) and stored(pruned, tmp_path)
    (tmp_path / "masks" / pruned.name / "plan.safetensors").unlink()
    assert not stored(pruned, tmp_path)


def test_the_callers_threads_and_randomness_come_back(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        seen: list[int] = []
        state, numbers, ours = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        execute(start(), tmp_path, lambda *_: seen.append(torch.get_num_threads()))
        assert set(seen) == {1} and torch.get_num_threads() == 2
        assert torch.equal(state, torch.get_rng_state()) and (numbers == np.random.get_state()[1]).all()
        assert random.getstate() == ours
    finally:
        torch.set_num_threads(1)


def own_train(training: Training) -> None:
    x, y = training.data["train"]["x"], training.data["train"]["y"]
    optimizer = training.make_optimizer()
    total = training.start(optimizer, carry=torch.zeros(()))
    for step in training.remaining():
        optimizer.zero_grad()
        loss = (training.model(x).argmax(1) != y).float().mean() * 0 + training.model(x).square().mean()
        loss.backward()
        optimizer.step()
        total = total + loss.detach()
        training.done(step, loss, carry=total)


def own_data(example: bool = False) -> dict[str, Any]:
    parts = {name: {"x": part[0], "y": part[1]} for name, part in data().items()}
    return {**parts, "example": lambda n: parts["test"]["x"][:n]} if example else dict(parts)


def own_metric(model: nn.Module, split: Any) -> torch.Tensor:
    return (model(split["x"]).argmax(1) == split["y"]).float().mean()


OWN = dataclasses.replace(TASK, data=own_data, train=own_train, metric=own_metric, direction="higher", transform=None)


@pytest.mark.parametrize("example", [False, True])
def test_a_task_with_data_training_and_metric_of_its_own(example: bool, tmp_path: Path) -> None:
    task = dataclasses.replace(OWN, data_options={"example": example})
    execute(start(task), tmp_path)
    row = execute(run(task=task, method="magnitude"), tmp_path)
    assert row["percent"] is False and row["metric"].endswith(":own_metric")
    assert set(row["code"]) == {"model", "data", "train", "metric"}
    assert (row["multiply_adds"], row["dense_multiply_adds"]) == ((54, 108) if example else (None, None))
    assert (row["latency"] is None) == (row["peak_memory_bytes"] is None) == (row["training_flops"] is None) != example
    if not example:
        with pytest.raises(BadInput, match=r"scratch-b counts multiply-adds: give data\['example'\]"):
            execute(masked("scratch-b", run(task=task, method="magnitude")), tmp_path)


def unlike(hidden: int = 12, width: float | None = None) -> nn.Module:
    model = build(hidden, width)
    nn.init.constant_(model[4].bias, float(np.random.default_rng().normal()))  # type: ignore[arg-type]
    return model


def no_module(width: float) -> int:
    return 3


def raising(width: float) -> nn.Module:
    raise KeyError("units")


def test_on_training(examples: int = 200) -> dict[str, Any]:
    parts = data(examples)
    return {**parts, "test": parts["train"]}


test_on_training.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": unlike}, BadInput, r"test_execute:unlike' is not deterministic: built twice .*, '4.bias' differs"),
        ({"model": no_module}, BadInput, "returned a int; it must return a torch.nn.Module"),
        ({"model": raising}, BadInput, r"called with \(width=12\) failed: KeyError: 'units'"),
        ({"model": "absent_module:make"}, BadInput, "model 'absent_module:make': no module 'absent_module'"),
        ({"metric": lambda model, split: float("nan"), "direction": "lower"}, NotFinite, "gave nan"),
        ({"metric": lambda model, split: None, "direction": "lower"}, BadInput, "gave None, which is no number"),
        ({"metric": lambda model, split: torch.ones(2), "direction": "lower"}, BadInput, "which is no number"),
        ({"metric": own_metric}, BadInput, "is your own, so say direction: higher or lower"),
        ({"evaluate_on": "tests"}, BadInput, "data has no 'tests', only 'train', 'validation', 'test'; did you mean 'test'"),
        ({"data": lambda: {"train": data()["train"], "test": data()["test"]}, "evaluate_every": 2}, BadInput, "evaluate_every"),
    ],
)
def test_wrong_tasks_are_told(changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=f"task 'toy'.*{says}"):
        execute(start(dataclasses.replace(TASK, **changes)), tmp_path)


def test_a_metric_on_training_data_is_marked(tmp_path: Path) -> None:
    assert execute(start(dataclasses.replace(TASK, data=test_on_training)), tmp_path)["tests_on_training_data"] is True
    assert execute(start(dataclasses.replace(TASK, evaluate_on="train")), tmp_path)["tests_on_training_data"] is True


def test_seeds_give_other_weights_and_other_batches(tmp_path: Path) -> None:
    first, second = (execute(start(seed=seed), tmp_path) for seed in (0, 1))
    assert [row["loss"] for row in first["history"]] != [row["loss"] for row in second["history"]]


def test_a_loss_that_diverges_names_run_and_step(tmp_path: Path) -> None:
    hot = dataclasses.replace(TASK, dense=Dense(12, optimizer=Optimizer(lr=1e30)))
    with pytest.raises(NotFinite, match=rf"run '{start(hot).name}': the loss is (nan|inf) at step \d"):
        execute(start(hot), tmp_path)


def test_data_is_loaded_once_for_runs_that_follow(tmp_path: Path) -> None:
    calls: list[Callable[..., Any]] = []

    def counted() -> dict[str, Any]:
        calls.append(counted)
        return data()

    task = dataclasses.replace(TASK, data=counted)
    execute(start(task), tmp_path)
    execute(run(task=task, point=HALF, method="magnitude"), tmp_path)
    assert len(calls) == 1 and math.isfinite(execute(start(task, seed=1), tmp_path)["value"])
