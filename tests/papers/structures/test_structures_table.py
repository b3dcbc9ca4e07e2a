"""The shared table of methods that remove whole structures: one row each."""

import copy
import functools
import json
import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.method import WHEN
from secateurs.errors import BadInput
from secateurs.graph import trace
from secateurs.recipe import FOR_STRUCTURES
from secateurs.registry import find_method
from secateurs.train.group_lasso import importances

CLASSES = 4
IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(3))
EXAMPLE = IMAGES[:2]
LABELS = torch.arange(12) % CLASSES


@dataclass(frozen=True)
class Row:
    """A method at ``ratio=0.5`` of 8 + 12 channels: 4 and 6 stay where every group loses the same share, else 10 of 20."""

    name: str
    counts: tuple[int, int] | None = None


TABLE = [Row("l1-filters", (4, 6)), Row("random-channels", (4, 6)), Row("taylor-channels"), Row("depgraph"), Row("obspa")]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def tiny(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES),
    ).to(dtype).eval()  # fmt: skip


def prune(row, model=None, dtype=torch.float32, **settings):
    batches = [(x.to(dtype), y) for x, y in zip(IMAGES.split(6), LABELS.split(6), strict=True)]
    calibration = batches if find_method(row.name).needs else None
    amount = settings or {"ratio": 0.5}
    return sc.prune(model or tiny(dtype), row.name, example=EXAMPLE.to(dtype), calibration=calibration, **amount)


@functools.cache
def half(row):
    """The result at ``ratio=0.5``, which tests only look at."""
    return prune(row)


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_the_table_has_one_row_for_every_method():
    assert [row.name for row in TABLE] == [m.name for m in sc.methods() if m.structures]


@ROWS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_are_exact(row, dtype):
    done = half(row) if dtype is torch.float32 else prune(row, dtype=dtype)
    counts = tuple(entry.kept for entry in done.plan.entries)
    assert counts == row.counts if row.counts else sum(counts) == 10
    assert (done.model[0].out_channels, done.model[3].out_channels) == counts
    assert sum(p.numel() for p in done.model.parameters()) == done.plan.after.parameters
    assert done.verification.ok and all(p.dtype == dtype for p in done.model.parameters())


@ROWS
def test_a_budget_is_never_missed(row):
    done = prune(row, params=0.5)
    assert done.plan.after.parameters <= 0.5 * done.plan.before.parameters


@ROWS
def test_the_same_seed_gives_the_same_model(row):
    first = half(row)
    torch.manual_seed(2)
    again = prune(row)
    assert first.plan.diff(again.plan) == []
    assert equal(first.model.state_dict(), again.model.state_dict())


@ROWS
def test_the_input_is_not_changed(row):
    model, before = tiny(), copy.deepcopy(tiny().state_dict())
    prune(row, model)
    assert equal(model.state_dict(), before) and all(p.grad is None for p in model.parameters())
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in model.modules())


@ROWS
def test_removing_nothing_is_the_identity(row):
    done = prune(row, ratio=0.0)
    assert done.plan.removed == 0 and equal(done.model.state_dict(), tiny().state_dict())


@ROWS
def test_a_plan_is_saved_loaded_and_replayed(row, tmp_path):
    done = half(row)
    done.plan.save(tmp_path)
    again = sc.GroupPlan.load(tmp_path)
    assert again.diff(done.plan) == [] and sc.Recipe.from_dict(again.recipe).to_dict() == done.plan.recipe
    fresh = sc.prune(tiny(), again, example=EXAMPLE)
    assert [p.shape for p in fresh.model.parameters()] == [p.shape for p in done.model.parameters()]


@ROWS
def test_the_model_is_saved_and_loaded(row, tmp_path):
    done = half(row)
    sc.save(done.model, tmp_path / "pruned")
    again = sc.load(tmp_path / "pruned", tiny)
    assert equal(again.state_dict(), done.model.state_dict()) and torch.equal(again.eval()(EXAMPLE), done.model(EXAMPLE))


@ROWS
def test_the_facts_are_complete(row):
    method = find_method(row.name)
    facts = method.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["when"] in WHEN and facts["prunes"] and method.__doc__
    assert re.search(r"\b(19|20)\d\d\b", facts["paper"]) and 10 < len(facts["summary"]) < 100 and facts["summary"][-1] != "."
    assert set(facts["defaults"]) <= {"criterion", *FOR_STRUCTURES}


@ROWS
def test_what_needs_data_asks_for_it(row):
    if find_method(row.name).needs:
        with pytest.raises(BadInput, match="needs calibration batches"):
            sc.prune(tiny(), row.name, example=EXAMPLE, ratio=0.5)


@ROWS
def test_zeros_are_not_what_it_makes(row):
    with pytest.raises(BadInput, match=f"method '{row.name}' removes whole structures"):
        sc.prune(tiny(), row.name, structure="2:4")


@ROWS
def test_it_does_not_prune_while_training(row):
    with pytest.raises(BadInput, match=rf"make tensors smaller, at once.*secateurs\.prune\(model, '{row.name}', example="):
        sc.Pruner(tiny(), row.name, ratio=0.5)


def planted(channel, scale=1e-3):
    """A channel of the first layer whose producer is faint, in rows that no other part speaks against."""
    model = tiny()
    with torch.no_grad():
        model[0].weight[channel] *= scale
    return model


def test_l1_goes_by_the_producers_rows_alone():
    """Channel 5 is produced faintly and read strongly: its filter's norm says go, the group's does not."""
    model = planted(5)
    with torch.no_grad():
        model[3].weight[:, 5] *= 100
    first = sc.prune(model, "l1-filters", example=EXAMPLE, ratio=0.125, include=["0.weight"]).plan
    whole = sc.prune(model, "depgraph", example=EXAMPLE, ratio=0.125, include=["0.weight"]).plan
    gone = [set(range(8)) - set(plan.keeps["0.weight:0"].tolist()) for plan in (first, whole)]
    assert gone[0] == {5} != gone[1]


def test_depgraph_ranks_by_the_relative_norm_of_whole_groups():
    """By hand: the members' squared norms, averaged, over their mean in the group; the lowest half of all 20 go."""
    model = tiny()
    done = sc.prune(model, "depgraph", example=EXAMPLE, ratio=0.5)
    graph, parameters = trace(model, EXAMPLE), dict(model.named_parameters())
    scores = {name: importances(graph[name], parameters).square() for name in ("0.weight:0", "3.weight:0")}
    scores = {name: s / s.mean() for name, s in scores.items()}
    lowest = torch.cat(list(scores.values())).sort().values[9]
    for name, found in scores.items():
        assert done.plan.keeps[name].tolist() == (found > lowest).nonzero().flatten().tolist()


def test_the_random_draw_follows_the_seed():
    plans = [sc.prune(tiny(), "random-channels", example=EXAMPLE, ratio=0.5, seed=s).plan for s in (0, 1)]
    assert plans[0].diff(plans[1]) != []


def test_taylor_removes_what_the_loss_does_not_depend_on():
    model = tiny()
    with torch.no_grad():
        model[8].weight[:, 7] = 0
    batches = [(IMAGES, LABELS)]
    done = sc.prune(model, "taylor-channels", example=EXAMPLE, ratio=0.05, calibration=batches)
    assert done.plan.keeps["3.weight:0"].tolist() == [k for k in range(12) if k != 7]
