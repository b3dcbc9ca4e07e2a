"""The plan of groups: saved, loaded, diffed, held to a graph; damaged files."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import secateurs as sc
from secateurs.errors import BadInput, CorruptFile
from secateurs.graph import trace
from secateurs.planning import GroupPlan
from tests.planning.nets import IMAGES, SEQUENCES, Attention, Residual, convolutions


def a_plan(flops=0.5, build=Residual, example=IMAGES, **settings):
    return sc.plan(build().eval(), "groups", example=example, flops=flops, **settings)


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_what_a_plan_says():
    plan = a_plan(scope="local")
    stream, block = plan.entries
    assert (stream.name, stream.kind, stream.size, stream.kept, stream.ratio) == ("stem.weight:0", "channels", 8, 5, 0.375)
    assert block.members == ("widen.weight:0", "widen.bias:0", "narrow.weight:1", "depthwise.weight:0", "depthwise.bias:0")
    assert (plan.size, plan.removed) == (20, 8 - stream.kept + 12 - block.kept)
    assert plan.before.multiply_adds == 164432 and plan.after.multiply_adds <= 164432 // 2
    reasons = {frozen.axis: frozen.reason for frozen in plan.frozen}
    assert reasons["head.weight:0"] == "the model returns it"
    assert plan.recipe["structures"] == ["groups"] and plan.recipe["flops"] == 0.5
    assert [row["name"] for row in plan.report()] == ["stem.weight:0", "widen.weight:0", "total"]


@pytest.mark.parametrize(("build", "example"), [(Residual, IMAGES), (Attention, SEQUENCES)])
def test_save_and_load_give_the_same_plan(tmp_path, build, example):
    plan = a_plan(0.6, build, example)
    plan.save(tmp_path)
    again = GroupPlan.load(tmp_path)
    assert (again.entries, again.before, again.after, again.frozen) == (plan.entries, plan.before, plan.after, plan.frozen)
    assert same(dict(sorted(again.keeps.items())), dict(sorted(plan.keeps.items()))) and again.recipe == plan.recipe
    assert plan.diff(again) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plan.json", "plan.safetensors"]


def test_the_same_choices_give_the_same_bits():
    assert same(a_plan().keeps, a_plan().keeps)


def test_diff_counts_what_only_one_removes():
    small, large = a_plan(0.8, scope="local"), a_plan(0.4, scope="local")
    rows = {row["name"]: row for row in small.diff(large)}
    for entry, other in zip(small.entries, large.entries, strict=True):
        row = rows[entry.name]
        assert (row["kept"], row["other_kept"]) == (entry.kept, other.kept)
        assert row["only_here"] == 0 and row["only_there"] == entry.kept - other.kept  # one order, cut at two places
    assert small.diff(a_plan(0.5, convolutions))[0]["other_kept"] is None


def test_a_plan_knows_its_model():
    plan, graph = a_plan(), trace(Residual().eval(), IMAGES)
    assert plan.check(graph) is graph
    with pytest.raises(BadInput, match=r"has a group 'stem\.weight:0' of 8 channels, which this model does not have"):
        plan.check(trace(convolutions(), IMAGES))


def test_a_plan_of_single_weights_is_told_apart(tmp_path):
    sc.prune(convolutions(), "magnitude", sparsity=0.5).plan.save(tmp_path)
    with pytest.raises(BadInput, match=r"one of single weights: secateurs\.Plan\.load"):
        GroupPlan.load(tmp_path)


def test_a_plan_of_groups_is_too_new_for_who_reads_weights(tmp_path):
    a_plan().save(tmp_path)
    with pytest.raises(BadInput, match=r"removes whole structures: secateurs\.GroupPlan\.load"):
        sc.Plan.load(tmp_path)


def test_no_plan(tmp_path):
    with pytest.raises(BadInput, match=r"holds no plan\.json"):
        GroupPlan.load(tmp_path)


def _version(data):
    data["version"] = 9


def _count(data):
    data["entries"][0]["kept"] -= 1


def _forget(data):
    del data["before"]


@pytest.mark.parametrize(("damage", "says"), [
    (_version, "has version 9"), (_count, "do not agree"), (_forget, "is damaged: KeyError"),
])  # fmt: skip
def test_a_damaged_document(tmp_path, damage, says):
    a_plan().save(tmp_path)
    data = json.loads((tmp_path / "plan.json").read_text())
    damage(data)
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(CorruptFile, match=says):
        GroupPlan.load(tmp_path)


def test_altered_indices(tmp_path):
    a_plan().save(tmp_path)
    keeps = {name: copy.deepcopy(keep) + 1 for name, keep in load_file(tmp_path / "plan.safetensors").items()}
    save_file(keeps, tmp_path / "plan.safetensors")
    with pytest.raises(CorruptFile, match="truncated, altered, or of another plan"):
        GroupPlan.load(tmp_path)
