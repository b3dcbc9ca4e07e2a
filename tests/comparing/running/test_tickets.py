"""Protocol tickets: rounds of the whole budget in one run, killed anywhere, and charged in full."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from secateurs.comparing.recipes.arms import arm_from
from secateurs.comparing.recipes.grid import runs
from secateurs.comparing.running import training as module
from secateurs.comparing.running.artefacts import Artefacts
from secateurs.comparing.running.cell import Cell
from secateurs.comparing.running.execute import execute
from secateurs.comparing.running.protocols import stage_of
from secateurs.comparing.running.task import ready
from secateurs.comparing.spec import Arm, Comparison, Dense, Point, Run
from secateurs.errors import BadInput
from secateurs.planning import Plan
from tests.comparing.toys import HALF, TASK, timeless

WATCHED = dataclasses.replace(TASK, evaluate_every=3)
BUDGET, KEPT = 21, [108, 86, 68, 54]  # 9 + 12 steps; 108 * 0.5^(j / 3)


def run(rounds: int = 3, point: Point | None = HALF, method: str = "lottery", **arm: Any) -> Run:
    return Run("toys", WATCHED, Arm("it", "tickets", settings={"method": method}, rounds=rounds, **arm), point, 0)


def test_the_row_has_every_round_and_charges_all_of_it(tmp_path: Path) -> None:
    row = execute(run(), tmp_path)
    assert [its["kept"] for its in row["rounds"]] == KEPT == [108, *KEPT[1:]]
    assert row["steps"] == 4 * BUDGET and row["inherited_steps"] == 0 and row["method"] == "lottery"
    assert row["cost_steps"] == pytest.approx(sum(BUDGET * kept / 108 for kept in KEPT))
    assert row["value"] == row["rounds"][-1]["value"] and row["sparsity"] == 0.5
    for its in row["rounds"]:
        losses = [entry["validation_loss"] for entry in its["history"]]
        assert len(losses) == 7 and its["early_stop"]["validation_loss"] == min(losses)
        assert its["early_stop"]["step"] == 3 * (1 + losses.index(min(losses)))
    assert not list((tmp_path / "state").iterdir())
    assert Plan.load(tmp_path / "masks" / run().name).removed == 54


def test_round_0_is_the_dense_model_of_the_whole_budget(tmp_path: Path) -> None:
    alone = dataclasses.replace(WATCHED, steps=BUDGET, dense=None, optimizer=WATCHED.dense.optimizer)  # type: ignore[union-attr]
    dense = execute(Run("toys", alone, Arm("dense", "dense"), None, 0), tmp_path)
    first = execute(run(1), tmp_path)["rounds"][0]
    assert first["value"] == dense["value"] and first["history"] == dense["history"]


def test_the_last_round_is_what_rewound_trains(tmp_path: Path) -> None:
    """The masks of the ticket over the initial weights of the seed, the same data: the same network to the bit."""
    ticket = execute(run(), tmp_path)
    rewound = dataclasses.replace(run(), arm=Arm("again", "rewound", of="it"), needs=(run().name,))
    assert execute(rewound, tmp_path)["history"] == ticket["history"]


def test_the_controls_have_its_counts_with_other_values_or_other_places(tmp_path: Path) -> None:
    execute(run(), tmp_path)
    plan, first = Plan.load(tmp_path / "masks" / run().name), ready(TASK).fresh(0).state_dict()
    for protocol in ("reinitialised", "reshuffled"):
        it = dataclasses.replace(run(), arm=Arm(protocol, protocol, of="it"), needs=(run().name,))
        found = stage_of(Cell(it, ready(it.task), Artefacts(tmp_path)))
        for name, mask in found.session.masks.items():  # type: ignore[union-attr]
            values, same = found.model.get_parameter(name).detach(), first[name] * mask
            assert int(mask.sum()) == int(plan.masks[name].sum())
            assert torch.equal(mask, plan.masks[name]) == (protocol == "reinitialised")
            assert not (values == same)[mask].any() if protocol == "reinitialised" else torch.equal(values, same)


class Killed(Exception):
    pass


def killer(at: int) -> Callable[[str, int, int], None]:
    def tell(name: str, step: int, steps: int) -> None:
        assert step <= steps == 3 * BUDGET
        if step == at:
            raise Killed

    return tell


@pytest.mark.parametrize(("method", "arm"), [("lottery", {}), ("lottery-rewind", {"rewind": 4}), ("ap", {}), ("sap", {})])
def test_killed_in_every_round_it_ends_with_the_same_row(
    method: str, arm: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    it = run(2, None if method == "sap" else HALF, method, **arm)
    whole = execute(it, tmp_path / "whole")
    for at in (3, 7, 21, 30, 45):
        try:
            execute(it, tmp_path / "killed", killer(at))
        except Killed:
            continue
    row = execute(it, tmp_path / "killed")
    for each in (*row["rounds"], *whole["rounds"]):
        del each["seconds"]
    assert timeless(row) == timeless(whole)


def test_a_round_goes_on_with_data_order_and_learning_rate_at_the_step_it_goes_back_to(tmp_path: Path) -> None:
    row = execute(run(1, Point(0.0), "lottery-rewind", rewind=5), tmp_path)
    first, second = row["rounds"]
    assert (second["first_step"], second["steps"], row["steps"]) == (5, 16, 37)
    assert second["value"] == first["value"]  # nothing is masked, so it is the dense training again


def test_a_recipe_says_it(tmp_path: Path) -> None:
    arm = arm_from({"method": "lottery-rewind", "rounds": 4, "rewind": 0.1})
    assert (arm.name, arm.protocol, arm.rounds, arm.rewind) == ("lottery-rewind", "tickets", 4, 0.1)
    assert arm_from("sap").protocol == "tickets" and arm_from({"method": "ap", "rewind": "rate:3"}).rewind == "rate:3"
    other = arm_from({"protocol": "tickets", "method": "magnitude", "rounds": 2, "strategy": 2})
    assert (other.name, other.strategy) == ("tickets magnitude", 2)
    arms = (arm, arm_from("sap"), arm_from({"protocol": "reshuffled", "of": "sap"}))
    made = runs(Comparison("c", (WATCHED,), arms, (HALF,), (0,)))
    by_name = {(it.arm.name, it.point.label if it.point else None): it for it in made}
    assert by_name["lottery-rewind", "50 %"].needs == () and ("sap", "own amount") in by_name
    assert by_name["reshuffled of sap", "own amount"].needs == (by_name["sap", "own amount"].name,)


def test_older_runs_keep_their_names() -> None:
    plain = Run("toys", TASK, Arm("gmp", "prune", settings={"method": "gmp"}), HALF, 0)
    assert set(plain.determined_by()["arm"]) == {"name", "protocol", "of", "settings", "cap", "rounds"}
    assert "rewind" in run(rewind=3).determined_by()["arm"] and run(rewind=3).name != run().name


@pytest.mark.parametrize(
    ("arm", "says"),
    [
        ({"method": "lottery", "begin": 0.1}, "begin"),
        ({"method": "lottery", "rewind": "late"}, "rewind='late'"),
        ({"method": "lottery", "strategy": 3}, "strategy=3"),
        ({"method": "sap", "sparsity": 0.5}, "sparsity"),
        ({"protocol": "tickets", "method": "gmp"}, "'gmp' prunes inside one training"),
        ({"protocol": "prune", "method": "lottery"}, "protocol 'tickets' in a comparison"),
        ({"protocol": "iterative", "method": "sap"}, "protocol 'tickets' in a comparison"),
        ({"method": "magnitude", "rewind": 0}, "rewind"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(arm: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        runs(Comparison("c", (WATCHED,), (arm_from(arm),), (HALF,), (0,)))


def test_a_stored_dense_model_has_no_initial_weights(tmp_path: Path) -> None:
    task = dataclasses.replace(TASK, dense=Dense(12, checkpoint=str(tmp_path / "x.safetensors")))
    with pytest.raises(BadInput, match="'tickets' begins with initial weights"):
        runs(Comparison("c", (task,), (arm_from("lottery"),), (HALF,), (0,)))


def test_a_snapshot_that_is_never_taken_fails_the_run(tmp_path: Path) -> None:
    it = run(1, HALF, "lottery", rewind=0.5)
    model = stage_of(Cell(it, ready(it.task), Artefacts(tmp_path))).model
    assert torch.count_nonzero(model[0].weight) == 72  # type: ignore[index]
    assert execute(it, tmp_path)["rounds"][1]["first_step"] == 11  # half of 21 steps, rounded
