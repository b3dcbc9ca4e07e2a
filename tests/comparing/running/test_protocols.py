"""Every protocol: what a run begins with, under which masks, for how long; the facts of the published protocols."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from secateurs.comparing.running.artefacts import Artefacts
from secateurs.comparing.running.cell import Cell, Stage
from secateurs.comparing.running.execute import execute
from secateurs.comparing.running.protocols import STAGES, stage_of
from secateurs.comparing.running.task import ready
from secateurs.comparing.spec import MASKED, PROTOCOLS, Dense, Optimizer, Point, Run
from secateurs.errors import BadInput
from secateurs.measure import multiply_adds, payload_bytes, stored_bytes
from secateurs.planning import Plan
from secateurs.train import Pruner, prune
from tests.comparing.toys import GMP, HALF, TASK, build, data, masked, run, start, weights

MAGNITUDE = run(method="magnitude")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with the start of seed 0 and a pruned run."""
    path = tmp_path_factory.mktemp("results")
    execute(start(), path)
    execute(MAGNITUDE, path)
    return path


def stage(it: Run, folder: Path) -> Stage:
    return stage_of(Cell(it, ready(it.task), Artefacts(folder)))


def values(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def plan(folder: Path) -> Plan:
    return Plan.load(folder / "masks" / MAGNITUDE.name)


def test_every_protocol_has_a_stage() -> None:
    assert STAGES.keys() == PROTOCOLS.keys()


def test_the_start_is_written_and_is_what_pruning_begins_with(folder: Path) -> None:
    found = stage(run("dense", point=None), folder)
    stored = weights(folder, start().name)
    assert all(torch.equal(value, stored[name]) for name, value in found.model.state_dict().items())
    assert (found.first, found.steps, found.settings, found.session) == (12, 9, TASK.optimizer, None)
    assert found.start == execute(start(), folder)["value"]
    fresh = stage(start(), folder)
    assert (fresh.first, fresh.steps, fresh.settings) == (0, 12, TASK.dense.optimizer)  # type: ignore[union-attr]


def test_a_start_from_a_file_takes_no_steps(folder: Path, tmp_path: Path) -> None:
    path = folder / "weights" / f"{start().name}.safetensors"
    task = dataclasses.replace(TASK, dense=Dense(12, checkpoint=str(path)))
    row = execute(start(task), tmp_path)
    assert (row["steps"], row["inherited_steps"], row["history"]) == (0, 12, [])
    first, second = weights(folder, start().name), weights(tmp_path, start(task).name)
    assert all(torch.equal(first[name], second[name]) for name in first) and "checkpoint" in row["code"]
    for wrong, says in [
        (dataclasses.replace(TASK, dense=Dense(12, checkpoint=str(path) + "x")), "does not exist; did you mean"),
        (dataclasses.replace(task, width=11), r"has '0.weight' with shape \(12, 6\), the model \(11, 6\)"),
    ]:
        with pytest.raises(BadInput, match=f"task 'toy': dense.checkpoint: .*{says}"):
            execute(start(wrong), tmp_path)


def test_one_shot_pruning_takes_the_exact_share_and_measures_before_training(folder: Path) -> None:
    found = stage(MAGNITUDE, folder)
    kept = {"0.weight": 36, "4.weight": 18}
    assert {name: int(torch.count_nonzero(found.model.get_parameter(name))) for name in kept} == kept
    assert found.before == ready(TASK).evaluate(found.model)


@pytest.mark.parametrize("method", ["gradient", "taylor"])
def test_gradients_are_of_seeded_training_batches_in_evaluation_mode(method: str, folder: Path) -> None:
    said = {"method": "taylor", "allocation": "uniform", "criterion": method}
    first, second = stage(run(**said), folder), stage(run(**said), folder)
    assert first.session is not None and second.session is not None and first.model.training
    assert not first.session.plan().diff(second.session.plan())
    weights, task = values(first.model), ready(TASK)
    cell = Cell(run(**said), task, Artefacts(folder))
    dense = cell.beginning().model.eval()
    for batch in cell.calibration() or []:
        (task.loss(dense, batch) / 2).backward()
    parameter = dense.get_parameter("0.weight")
    score = parameter.grad.abs() if method == "gradient" else (parameter * parameter.grad).abs()  # type: ignore[union-attr]
    assert torch.equal(weights["0.weight"] != 0, score >= score.flatten().topk(36).values[-1])


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_methods_that_go_by_calibration_see_the_same_batches(method: str, folder: Path) -> None:
    it = run(method=method)
    found = stage(it, folder)
    dense = stage(run("dense", point=None), folder).model.eval()
    batches = Cell(it, ready(it.task), Artefacts(folder)).calibration()
    by_hand = prune(dense, method, sparsity=0.5, calibration=batches, seed=0)
    assert found.session is not None and found.session.masks.kept() == by_hand.plan.masks.kept()
    assert all(torch.equal(value, by_hand.model.state_dict()[name]) for name, value in found.model.state_dict().items())


def test_pruning_while_training_ends_at_the_point(folder: Path, tmp_path: Path) -> None:
    row = execute(run(**GMP), folder)
    assert (row["sparsity"], row["before"], row["method"]) == (0.5, None, "gmp")
    alone = dataclasses.replace(TASK, dense=None)
    assert stage(run(task=alone, **GMP), tmp_path).first == 0  # from random weights where no dense model was trained
    assert execute(run(task=alone, **GMP), tmp_path)["inherited_steps"] == 0


def test_a_method_with_batches_of_its_own_gets_training_batches_of_other_draws(folder: Path) -> None:
    it = run(method="bip", options={"rate": 1.0})
    row = execute(it, folder)
    assert (row["sparsity"], row["method"], row["steps"]) == (0.5, "bip", 9)
    cell = Cell(it, ready(it.task), Artefacts(folder))
    torch.manual_seed(7)
    batches = [cell.batch_beside(number) for number in range(9)]
    after = torch.rand(2)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(2), after), "the generators are as they were"
    assert torch.equal(batches[3][0], cell.batch_beside(3)[0]) and not torch.equal(batches[3][0], batches[4][0])
    assert [x.shape for x, _ in batches] == [(16, 6)] * 9
    other = Cell(dataclasses.replace(it, seed=1), ready(it.task), Artefacts(folder))
    assert not torch.equal(batches[0][0], other.batch_beside(0)[0])
    text = Cell(it, ready(dataclasses.replace(TASK, data=lambda: {**data(), "train": "words"})), Artefacts(folder))
    with pytest.raises(BadInput, match="method 'bip' takes batches beside those of the training loop"):
        text.batch_beside(0)


def test_any_method_with_a_schedule_prunes_while_the_model_trains(folder: Path) -> None:
    ramp = {"schedule": "linear", "begin": 2, "end": 6, "every": 2}
    said = {"method": "woodfisher", "options": {"gradients": 16, "block": 4}, **ramp}
    row = execute(run(**said), folder)
    assert (row["sparsity"], row["before"], row["method"]) == (0.5, None, "woodfisher")
    found = stage(run(method="magnitude", **ramp), folder)
    assert isinstance(found.session, Pruner) and list(found.session.schedule.updates()) == [2, 4, 6]
    assert not isinstance(stage(run(method="magnitude", schedule="one-shot"), folder).session, Pruner)


def test_rounds_end_at_the_same_counts_as_one_shot(folder: Path) -> None:
    row = execute(run("iterative", rounds=3, method="taylor", allocation="uniform"), folder)
    assert [layer["kept"] for layer in row["layers"]] == [36, 18] and row["steps"] == 9
    counts = [57 + 29] * 3 + [45 + 23] * 3 + [36 + 18] * 3
    assert row["average_density"] == pytest.approx(sum(counts) / (9 * 108), abs=0.01)
    with pytest.raises(BadInput, match="10 rounds do not fit into 9 steps"):
        stage(run("iterative", rounds=10, method="magnitude"), folder)


def test_a_compression_ratio_is_of_the_whole_network(folder: Path) -> None:
    row = execute(run(point=Point(compression=2), method="magnitude"), folder)
    assert row["parameters"] / row["nonzero"] == pytest.approx(2, abs=2 / row["nonzero"]) and row["point"] == "2x"


def test_selections_of_the_task_are_all_methods_and_of_the_dense_model_too(folder: Path) -> None:
    task = dataclasses.replace(TASK, selection={"exempt": ["last-linear"]})
    execute(start(task), folder)
    for it in (run(task=task, method="magnitude"), run("dense", task, None)):
        assert [layer["name"] for layer in execute(it, folder)["layers"]] == ["0.weight"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_small_dense_model_is_the_narrowest_with_at_least_the_bytes(share: float, allocation: str, folder: Path) -> None:
    point = Point(sparsity=share)
    small = stage(run("small-dense", point=point), folder)
    pruned = stage(run(point=point, method="magnitude", allocation=allocation), folder)
    assert payload_bytes(small.model) >= stored_bytes(pruned.model.state_dict())
    assert (small.steps, small.first, small.settings) == (21, 0, TASK.dense.optimizer)  # type: ignore[union-attr]
    narrower = build(width=small.width - 1) if small.width else None
    one_bit_each = 9 + 5 + 4 * round(108 * (1 - share)) + payload_bytes(build(width=12)) - 4 * 108
    assert narrower is not None and payload_bytes(narrower) < one_bit_each


# -- Liu et al. 2019, Rethinking the Value of Network Pruning; Frankle & Carbin 2019, The Lottery Ticket Hypothesis --------


@pytest.mark.parametrize("protocol", MASKED)
def test_counts_are_those_of_the_pruned_model_and_masked_entries_stay_zero(protocol: str, folder: Path) -> None:
    found = stage(masked(protocol, MAGNITUDE), folder)
    session, pruned = found.session, stage(MAGNITUDE, folder).model
    assert session is not None and session.masks.kept() == plan(folder).masks.kept() == {"0.weight": 36, "4.weight": 18}
    seen = []

    def look(*_: Any) -> None:
        seen.append([int(torch.count_nonzero(found.model.get_parameter(name))) for name in session.masks])

    optimizer = torch.optim.SGD(found.model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    session.attach(optimizer)
    for _ in range(3):
        found.model(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
        look()
    assert seen == [[36, 18]] * 3
    assert multiply_adds(found.model, torch.randn(1, 6)).nonzero == multiply_adds(pruned, torch.randn(1, 6)).nonzero


@pytest.mark.parametrize(("protocol", "same_places", "initial"), [("scratch-e", True, False), ("scratch-b", True, False),
    ("reinitialised", True, False), ("reshuffled", False, True), ("rewound", True, True)])  # fmt: skip
def test_where_masks_lie_and_whose_values_they_keep(protocol: str, same_places: bool, initial: bool, folder: Path) -> None:
    found, beginning = stage(masked(protocol, MAGNITUDE), folder), values(ready(TASK).fresh(0))
    trained = weights(folder, start().name)
    for name, mask in plan(folder).masks.items():
        value = found.model.get_parameter(name).detach()
        assert torch.equal(value != 0, mask) == same_places
        inside = value != 0
        assert torch.equal(value[inside], beginning[name][inside]) == initial
        assert not set(value[inside].tolist()) & set(trained[name].flatten().tolist())
    assert found.settings == TASK.dense.optimizer and found.first == 0  # type: ignore[union-attr]


def test_scratch_e_has_the_whole_budget_and_scratch_b_the_same_compute(folder: Path) -> None:
    budget, cap = TASK.budget, 10.0
    assert {stage(masked(p, MAGNITUDE), folder).steps for p in MASKED if p != "scratch-b"} == {budget} == {21}
    found = stage(masked("scratch-b", MAGNITUDE, cap=cap), folder)
    work = multiply_adds(stage(MAGNITUDE, folder).model, torch.randn(1, 6))
    assert 0 <= budget * work.dense - found.steps * work.nonzero < work.nonzero
    assert found.steps == 42 and stage(masked("scratch-b", MAGNITUDE, cap=1.5), folder).steps == 31


def test_with_nothing_removed_they_are_the_dense_run(tmp_path: Path) -> None:
    """The same weights to the bit as 21 steps of the dense training; Scratch-B has no more steps."""
    none = run(point=Point(sparsity=0.0), method="magnitude")
    execute(start(), tmp_path)
    execute(none, tmp_path)
    whole = dataclasses.replace(TASK, dense=Dense(21, optimizer=Optimizer(lr=0.05)), steps=0)
    execute(start(whole), tmp_path)
    assert stage(masked("scratch-b", none), tmp_path).steps == 21
    for protocol in ("rewound", "reshuffled"):
        found = stage(masked(protocol, none), tmp_path)
        row = execute(masked(protocol, none), tmp_path)
        again = execute(start(whole), tmp_path)
        assert (row["value"], row["history"]) == (again["value"], again["history"]) and found.session is not None


def test_missing_artefacts_and_names_are_told(tmp_path: Path) -> None:
    for wrong, says in [
        (run(method="magnitude"), "the start .* does not exist"),
        (masked("rewound", MAGNITUDE), "holds no plan.json"),
        (dataclasses.replace(run("rewound"), needs=()), "takes the masks of another arm: say of:"),
        (run("pruned"), "protocol 'pruned' is unknown; .*did you mean 'prune'"),
        (start(dataclasses.replace(TASK, dense=None)), "has no dense:"),
        (run("small-dense", dataclasses.replace(TASK, widths=())), "the task has none"),
        (run("small-dense", point=Point()), "needs an operating point"),
        (run("small-dense", dataclasses.replace(TASK, widths=(1, 2)), HALF), "no width has a payload of"),
    ]:
        with pytest.raises(BadInput, match=says):
            stage(wrong, tmp_path)


def test_pruning_leaves_the_stored_start_as_it_was(folder: Path) -> None:
    before = copy.deepcopy(weights(folder, start().name))
    execute(run(method="taylor"), folder)
    assert all(torch.equal(value, before[name]) for name, value in weights(folder, start().name).items())
