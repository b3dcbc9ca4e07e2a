"""Arms of which a part of the pruned model trains: the session, its optimizer and steps, the row, killed and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from secateurs.comparing.recipes.arms import arm_from
from secateurs.comparing.recipes.checks import check
from secateurs.comparing.recipes.grid import steps
from secateurs.comparing.running import training as module
from secateurs.comparing.running.artefacts import Artefacts
from secateurs.comparing.running.cell import Cell
from secateurs.comparing.running.execute import execute
from secateurs.comparing.running.protocols import stage_of
from secateurs.comparing.running.task import ready
from secateurs.comparing.spec import Arm, Comparison, Optimizer, Point, Retrain, Run
from secateurs.errors import BadInput
from secateurs.train import Held
from secateurs.train.retraining import Retraining
from tests.comparing.toys import TASK, run, start, timeless

ADAM = Optimizer("adamw", 0.01, rate="linear", warmup=0.1)
PART = Retrain(("biases", "norms"), "mask-lora", rank=1, optimizer=ADAM, steps=7)


def retrained(how: Retrain, **settings: Any) -> Run:
    it = run(**{"method": "magnitude", **settings})
    return dataclasses.replace(it, arm=dataclasses.replace(it.arm, retrain=how))


def test_a_part_trains_with_its_own_optimizer_for_its_own_steps(tmp_path: Path) -> None:
    execute(start(), tmp_path)
    it = retrained(PART)
    stage = stage_of(Cell(it, ready(it.task), Artefacts(tmp_path)))
    assert isinstance(stage.session, Retraining) and (stage.steps, stage.settings) == (7, ADAM) == (steps(it), ADAM)
    row = execute(it, tmp_path)
    # of 72 + 12 + 24 + 36 + 3 = 147: biases 12 + 3, the norm's 24, factors of rank 1: 6 + 12 and 12 + 3
    assert row["trained_share"] == (15 + 24 + 33) / 147
    assert row["steps"] == 7 and row["sparsity"] == 0.5 and row["kept"] == row["selected"] - 54
    whole = execute(run(method="magnitude"), tmp_path)
    assert row["before"] == whole["before"] and "trained_share" not in whole


def test_no_steps_measure_what_was_pruned(tmp_path: Path) -> None:
    execute(start(), tmp_path)
    it = retrained(Retrain(steps=0), method="perp", options={"rank": 1, "steps": 3})
    row = execute(it, tmp_path)
    assert isinstance(stage_of(Cell(it, ready(it.task), Artefacts(tmp_path))).session, Held)
    assert row["value"] == row["before"] and row["steps"] == steps(it) == 0 and row["sparsity"] == 0.5


@pytest.mark.parametrize("adapter", ["mask-lora", "scale-lora", "lora-prune", None])
def test_a_killed_run_ends_with_the_same_row(adapter: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def kill(name: str, step: int, steps: int) -> None:
        if step == 4:
            raise Killed

    for folder in ("whole", "killed"):
        execute(start(), tmp_path / folder)
    it = retrained(dataclasses.replace(PART, adapter=adapter))
    whole = execute(it, tmp_path / "whole")
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module, "SAVE_SHARE", float("inf"))
    with pytest.raises(Killed):
        execute(it, tmp_path / "killed", kill)
    assert (tmp_path / "killed" / "state" / f"{it.name}.pt").is_file()
    assert timeless(execute(it, tmp_path / "killed")) == timeless(whole)


def test_runs_without_it_are_called_what_they_were() -> None:
    plain, part = run(method="magnitude"), retrained(PART)
    assert "retrain" not in plain.determined_by()["arm"] and plain.name != part.name
    assert part.determined_by()["arm"]["retrain"]["optimizer"]["lr"] == 0.01


def test_it_is_read_from_a_recipe() -> None:
    pytest.importorskip("pydantic")
    said = {"parts": ["biases", "norms"], "adapter": "mask-lora", "rank": 1, "steps": 7,
            "optimizer": {"name": "adamw", "lr": 0.01, "rate": "linear", "warmup": 0.1}}  # fmt: skip
    assert arm_from({"method": "magnitude", "retrain": said}).retrain == PART
    with pytest.raises(BadInput, match="key 'ranks' is unknown in retrain; did you mean 'rank'"):
        arm_from({"method": "magnitude", "retrain": {**said, "ranks": 2}})
    with pytest.raises(BadInput, match="key 'learning' is unknown in retrain: optimizer"):
        arm_from({"method": "magnitude", "retrain": {**said, "optimizer": {"learning": 2}}})
    with pytest.raises(BadInput, match="key 'retrain' is unknown in protocol 'iterative'"):
        arm_from({"protocol": "iterative", "method": "magnitude", "retrain": said})


BAD: list[tuple[Retrain, dict[str, Any], str]] = [
    (Retrain(), {}, "retrain: nothing would train"),
    (Retrain(("bias",)), {}, "parts: 'bias' is unknown"),
    (Retrain(adapter="lora"), {}, "'lora' cannot be merged into pruned weights without losing their sparsity"),
    (Retrain(("norms",), steps=-1), {}, "steps=-1: give a whole number"),
    (Retrain(("norms",), optimizer=Optimizer(rate="falling")), {}, "rate 'falling' is unknown"),
    (Retrain(("norms",)), {"method": "gmp", "begin": 0.1, "end": 0.5}, "a method that prunes at once"),
]


@pytest.mark.parametrize(("how", "settings", "message"), BAD, ids=[message for _, _, message in BAD])
def test_what_cannot_work_is_told_before_anything_runs(how: Retrain, settings: dict[str, Any], message: str) -> None:
    arm = Arm("arm", settings={"method": "magnitude", **settings}, retrain=how)
    with pytest.raises(BadInput, match=message):
        check(Comparison("it", (TASK,), (arm,), (Point(0.5),)))


def test_a_linear_rate_rises_and_falls() -> None:
    from secateurs.comparing.running.optimizers import rate_at

    rates = [rate_at(1.0, ADAM, step, 20) for step in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[-1] == pytest.approx(1 / 18)
    assert torch.tensor(rates[2:]).diff().allclose(torch.tensor(-1 / 18))
