"""The shared table: one row per method. A new method adds its row and has all of this tested."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.method import WHEN
from secateurs.errors import BadInput
from secateurs.planning import Plan
from secateurs.registry import METHODS, find_method
from tests.papers.networks import batches, tiny


@dataclass(frozen=True)
class Row:
    """A method at 70 % of 144 + 192 + 64 = 400 weights, which is 280; ``layers`` where it promises each layer's count."""

    name: str
    layers: tuple[int, ...] | None = None
    while_training: dict[str, Any] = field(default_factory=lambda: {"begin": 4})  # settings of a Pruner
    options: dict[str, Any] = field(default_factory=dict)


UNIFORM = (101, 134, 45)  # 100.8, 134.4, 44.8
BY_ROW = (96, 128, 44)  # of every row 8 of 12 (8.4), 8 of 12, 11 of 16 (11.2)
GRADUAL = {"begin": 2, "end": 8, "every": 3}
TABLE = [
    Row("gmp", UNIFORM, while_training=GRADUAL),
    Row("magnitude", UNIFORM),
    Row("global-magnitude"),
    Row("random"),
    Row("taylor"),
    Row("lottery", UNIFORM),
    Row("lottery-rewind"),
    Row("sap"),
    Row("ap"),
    Row("set", while_training={"every": 2}),
    Row("rigl", while_training={"every": 2}),
    Row("granet", while_training=GRADUAL),
    Row("journey", while_training={"every": 2}),
    Row("perp", UNIFORM),
    Row("woodfisher", while_training=GRADUAL | {"schedule": "cubic"}, options={"gradients": 16}),
    Row("m-fac", while_training={"begin": 4}, options={"gradients": 8, "samples": 2, "recompute": 3}),
    Row("bip", while_training={}),
    Row("wanda", BY_ROW),
    Row("sparsegpt", UNIFORM),
    Row("gblm", BY_ROW),
]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
IN_A_LOOP = [row for row in TABLE if not {"calibration", "rounds"} & set(find_method(row.name).needs)]
TRAINING = pytest.mark.parametrize("row", IN_A_LOOP, ids=lambda row: row.name)
SPARSITY, STEPS = 0.7, 12


class Run:
    """A short training with the method's pruner attached."""

    def __init__(self, row: Row, dtype: torch.dtype = torch.float32, **settings: Any):
        self.model = tiny(dtype)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        given = {"sparsity": SPARSITY, "total_steps": STEPS, "options": row.options, **own_data(row, dtype),
                 **row.while_training, **settings}
        self.pruner = sc.Pruner(self.model, row.name, **given)
        self.parts = {"model": self.model, "optimizer": self.optimizer, "pruner": self.pruner}
        self.dtype = dtype

    def train(self, start: int = 0, stop: int = STEPS) -> Run:
        self.pruner.attach(self.optimizer)
        for inputs, labels in batches(STEPS, self.dtype)[start:stop]:
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(inputs), labels).backward()
            self.optimizer.step()
        return self

    def checkpoint(self) -> io.BytesIO:
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self.parts.items()}, file)
        file.seek(0)
        return file

    def resume(self, file: io.BytesIO) -> Run:
        state = torch.load(file, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return self


def needs(row: Row) -> tuple[str, ...]:
    return find_method(row.name).needs


def own_data(row: Row, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The pruner's own batches, for a method that takes some beside those of the training loop."""
    return {"data": batches(2 * STEPS, dtype)[STEPS:]} if "batches" in needs(row) else {}


def finds_amount(row: Row) -> bool:
    """Whether no sparsity is asked for."""
    return getattr(find_method(row.name), "finds_amount", False)


def in_rounds(
    row: Row, dtype: torch.dtype, model: nn.Module | None = None, rounds: int = 2, rate: float = 0.1
) -> tuple[nn.Module, Plan]:
    """The pruned model and its plan after so many rounds of a short training; test_rounds.py kills and resumes them."""
    model, asked = model or tiny(dtype), {} if finds_amount(row) else {"sparsity": SPARSITY}
    session = sc.Rounds(model, row.name, rounds=rounds, total_steps=STEPS, options=row.options, **asked)
    for each in session:
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-3)
        each.attach(optimizer)
        for inputs, labels in batches(STEPS, dtype)[each.first_step :]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    plan = session.plan()
    return session.finish(), plan


def prune(row: Row, dtype: torch.dtype = torch.float32, model: nn.Module | None = None) -> tuple[nn.Module, Plan]:
    """The pruned model and its plan, in one shot or, where the method needs training, after a short one."""
    if "rounds" in needs(row):
        return in_rounds(row, dtype, model)
    if "training" in needs(row):
        assert model is None
        run = Run(row, dtype).train()
        plan = run.pruner.plan()
        return run.pruner.finish(), plan
    calibration = batches(2, dtype) if {"gradient", "calibration"} & set(needs(row)) else None
    pruned = sc.prune(model or tiny(dtype), row.name, sparsity=SPARSITY, calibration=calibration, options=row.options)
    return pruned.model, pruned.plan


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}


def equal(a: Any, b: Any) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_the_table_has_one_row_for_every_method():
    assert [method.name for method in sc.methods()] == list(METHODS)
    assert [row.name for row in TABLE] == [method.name for method in sc.methods() if not method.structures]


@ROWS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_counts_are_exact_in_every_dtype(row, dtype):
    model, plan = prune(row, dtype)
    zeros = [int((w == 0).sum()) for w in weights(model).values()]
    assert sum(zeros) == plan.removed
    assert finds_amount(row) or plan.removed == sum(row.layers or UNIFORM)
    assert zeros == [entry.removed for entry in plan.entries]
    assert row.layers is None or tuple(zeros) == row.layers
    assert {p.dtype for p in model.parameters()} == {dtype}


@ROWS
def test_pruning_again_changes_nothing(row):
    model, plan = prune(row)
    if "rounds" in needs(row) and (finds_amount(row) or find_method(row.name).compares):
        return  # they take some of whatever weights are left
    if "rounds" in needs(row):
        again, plan_again = in_rounds(row, torch.float32, copy.deepcopy(model), rounds=1, rate=0.0)
    elif "training" in needs(row):
        given = {"sparsity": SPARSITY, "schedule": "constant", "begin": 0, "end": 0, "total_steps": STEPS, **own_data(row)}
        pruner = sc.Pruner(copy.deepcopy(model), row.name, **given)
        pruner.attach(torch.optim.SGD([w.parameter for w in pruner.weights], 0.1))  # ranks at step 0
        plan_again, again = pruner.plan(), pruner.finish()
    else:
        again, plan_again = prune(row, model=model)
    assert plan.diff(plan_again) == []
    assert equal(dict(model.named_parameters()), dict(again.named_parameters()))


@ROWS
def test_the_same_seed_gives_the_same_mask(row):
    torch.manual_seed(1)
    _, plan = prune(row)
    torch.manual_seed(2)
    torch.rand(5)
    _, again = prune(row)
    assert plan.diff(again) == []


@ROWS
def test_a_plan_is_saved_loaded_and_replayed(row, tmp_path):
    model, plan = prune(row)
    plan.save(tmp_path)
    again = Plan.load(tmp_path)
    assert again.diff(plan) == [] and again.entries == plan.entries
    assert sc.Recipe.from_dict(again.recipe).to_dict() == plan.recipe
    fresh = tiny()
    again.replay(fresh)
    assert [int((w == 0).sum()) for w in weights(fresh).values()] == [entry.removed for entry in plan.entries]
    assert sc.verify(model, again).ok


@ROWS
def test_the_input_is_not_changed(row):
    if {"training", "rounds"} & set(needs(row)):
        use = "Rounds" if "rounds" in needs(row) else "Pruner"
        with pytest.raises(BadInput, match=f"{use}\\(model, {row.name!r}"):
            sc.prune(tiny(), row.name, sparsity=SPARSITY)
        return
    model, before = tiny(), dict(tiny().named_parameters())
    pruned, _ = prune(row, model=model)
    assert pruned is not model
    assert equal(dict(model.named_parameters()), before)
    assert all(p.grad is None for p in model.parameters())


@ROWS
def test_the_facts_are_complete(row):
    method = find_method(row.name)
    facts = method.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["name"] == row.name
    assert facts["when"] in WHEN
    assert facts["prunes"] and isinstance(facts["needs"], list)
    assert re.search(r"\b(19|20)\d\d\b", facts["paper"]), "the paper's year"
    assert 10 < len(facts["summary"]) < 100 and facts["summary"][-1] != "."
    assert method.__doc__
    assert set(facts["defaults"]) <= {f.name for f in dataclasses.fields(sc.Recipe)}


@ROWS
def test_what_needs_calibration_asks_for_it(row):
    if "calibration" in needs(row):
        with pytest.raises(BadInput, match=f"'{row.name}' prunes by what calibration data shows: pass calibration="):
            sc.prune(tiny(), row.name, sparsity=SPARSITY)
        with pytest.raises(BadInput, match=f"prune\\(model, '{row.name}', ..., calibration=batches"):
            sc.Pruner(tiny(), row.name, sparsity=SPARSITY)


@TRAINING
@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_resumed_run_ends_with_the_same_bits(row, stop):
    whole = Run(row).train()
    resumed = Run(row).resume(Run(row).train(0, stop).checkpoint()).train(stop)
    assert resumed.pruner.step_count == STEPS
    assert resumed.pruner.history == whole.pruner.history
    assert resumed.pruner.average_density == whole.pruner.average_density
    assert equal(resumed.pruner.masks, whole.pruner.masks)
    assert equal(resumed.model.state_dict(), whole.model.state_dict())
    assert equal(resumed.pruner.finish().state_dict(), whole.pruner.finish().state_dict())
    assert sum(int((w == 0).sum()) for w in weights(whole.model).values()) == sum(UNIFORM) == 280


VARIANTS = [
    {"options": {"order": "layerwise"}},
    {"options": {"order": "global"}},
    {"options": {"threshold": "histogram"}},
    {"enforcement": "overwrite"},
    {"enforcement": "straight-through"},
    {"criterion": "gradient"},
    {"structure": "2:4", "sparsity": None},
    {"schedule": "cyclic"},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_resumed_run_of_every_variant_of_gmp_ends_with_the_same_bits(settings):
    whole, half = Run(TABLE[0], **settings).train(), Run(TABLE[0], **settings).train(0, 5)
    resumed = Run(TABLE[0], **settings).resume(half.checkpoint()).train(5)
    assert resumed.pruner.history == whole.pruner.history
    assert equal(resumed.pruner.masks, whole.pruner.masks)
    assert equal(resumed.model.state_dict(), whole.model.state_dict())
