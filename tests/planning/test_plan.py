"""The plan: inspect, save, load, diff, replay, undo."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput, CorruptFile
from secateurs.models import survey
from secateurs.planning import Plan


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def tied():
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["words"].weight
    return model


def a_plan(sparsity=0.5, model=None):
    return sc.prune(model or network(), "magnitude", sparsity=sparsity).plan


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_what_a_plan_says():
    plan = a_plan(0.75)
    first, second = plan.entries
    assert (first.name, first.kind, first.structure, first.shape, first.size, first.removed) == (
        "0.weight",
        "linear",
        "element",
        (6, 4),
        24,
        18,
    )
    assert (second.name, second.removed, second.sparsity) == ("2.weight", 14, 14 / 18)  # 13.5 rounds up
    assert (plan.size, plan.removed, plan.sparsity) == (42, 32, 32 / 42)
    assert plan.recipe["method"] == "magnitude" and plan.recipe["sparsity"] == 0.75


def test_save_and_load_give_the_same_plan(tmp_path):
    plan = a_plan()
    plan.save(tmp_path)
    again = Plan.load(tmp_path)
    assert again.entries == plan.entries and again.recipe == plan.recipe and same(again.masks, plan.masks)
    assert plan.diff(again) == []
    assert sorted(f.name for f in tmp_path.iterdir()) == ["plan.json", "plan.safetensors"]
    assert (tmp_path / "plan.safetensors").stat().st_size < 400  # 42 bits and a header


def test_a_tied_weight_is_planned_and_replayed_once(tmp_path):
    model = tied()
    plan = a_plan(0.6, model)
    (entry,) = plan.entries
    assert (entry.name, entry.coupled, entry.size, entry.removed) == ("words.weight", ("head.weight",), 15, 9)
    plan.save(tmp_path)
    undo = Plan.load(tmp_path).replay(model)
    assert model["head"].weight is model["words"].weight
    assert int((model["head"].weight == 0).sum()) == 9
    assert list(undo.values) == ["words.weight"]


def test_a_tied_weight_that_is_two_in_this_model_is_refused():
    apart = nn.ModuleDict({"words": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    before = copy.deepcopy(apart.state_dict())
    with pytest.raises(
        BadInput, match=r"holds 'words\.weight' and 'head\.weight' for one tied weight, in this model they are two"
    ):
        a_plan(0.6, tied()).replay(apart)
    assert all(torch.equal(before[n], v) for n, v in apart.state_dict().items())


def test_replay_and_undo_are_exact():
    model, plan = network(), a_plan()
    before = copy.deepcopy(model.state_dict())
    undo = plan.replay(model)
    for name, mask in plan.masks.items():
        value = model.get_parameter(name)
        assert (value[~mask] == 0).all() and torch.equal(value[mask], before[name][mask])
    assert torch.equal(model.get_parameter("0.bias"), before["0.bias"])
    undo(model)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_replay_goes_through_wrappers_and_dtypes():
    model = torch.optim.swa_utils.AveragedModel(network()).bfloat16()
    a_plan().replay(model)
    assert int((model.module[0].weight == 0).sum()) == 12


def test_a_replay_that_kept_nothing_cannot_be_undone():
    model = network()
    with pytest.raises(BadInput, match="kept no values to put back"):
        a_plan().replay(model, undoable=False)(model)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (nn.Sequential(nn.Linear(4, 6)), "removes entries of '2.weight', which this model does not have"),
        (
            nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)),
            r"'2.weight' with shape \(3, 6\), this model with \(4, 6\)",
        ),
    ],
)
def test_replay_on_another_model_changes_nothing(other, says):
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(BadInput, match=says):
        a_plan().replay(other)
    assert all(torch.equal(before[n], v) for n, v in other.state_dict().items())


def test_diff_says_where_and_how_many():
    weight = survey(nn.Linear(3, 2)).weights
    mine = Plan.of(weight, {"weight": torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()}, "element", {})
    theirs = Plan.of(weight, {"weight": torch.tensor([[1, 0, 1], [1, 1, 1]]).bool()}, "element", {})
    assert mine.diff(theirs) == [{"name": "weight", "removed": 3, "other_removed": 1, "only_here": 3, "only_there": 1}]
    wider = Plan.of(survey(nn.Linear(4, 2)).weights, {"weight": torch.ones(2, 4).bool()}, "element", {})
    assert mine.diff(wider) == [{"name": "weight", "removed": 3, "other_removed": 0, "only_here": None, "only_there": None}]
    assert [row["name"] for row in mine.diff(a_plan())] == ["weight", "0.weight", "2.weight"]
    assert mine.diff(a_plan())[0]["other_removed"] is None


# -- damage


def rewrite(folder, **changes):
    data = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**data, **changes}))


def truncate(name, share):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def swap_two_bits(folder):
    """One entry back, another gone: every count still fits."""
    tensors = load_file(folder / "plan.safetensors")
    mask = tensors["2.weight.mask"]
    bits = [int(b) for byte in mask.tolist() for b in f"{byte:08b}"[::-1]][:18]
    i, j = bits.index(0), bits.index(1)
    mask[i // 8] ^= 1 << (i % 8)
    mask[j // 8] ^= 1 << (j % 8)
    save_file(tensors, folder / "plan.safetensors")


def claim_more(folder):
    entries = json.loads((folder / "plan.json").read_text())["entries"]
    rewrite(folder, entries=[{**entries[0], "size": 30, "removed": 18}, entries[1]])


def claim_less(folder):
    entries = json.loads((folder / "plan.json").read_text())["entries"]
    rewrite(folder, entries=[{**entries[0], "removed": 11}, entries[1]])


DAMAGE = {
    "half of the text": (truncate("plan.json", 0.5), "is damaged"),
    "no text": (truncate("plan.json", 0), "is damaged"),
    "half of the masks": (truncate("plan.safetensors", 0.5), "truncated, altered, or of another plan"),
    "masks gone": (lambda folder: (folder / "plan.safetensors").unlink(), "is damaged"),
    "a mask altered": (swap_two_bits, "truncated, altered, or of another plan"),
    "a list": (lambda folder: (folder / "plan.json").write_text("[]"), "is damaged"),
    "no entries": (lambda folder: rewrite(folder, entries=None), "is damaged"),
    "odd entries": (lambda folder: rewrite(folder, entries=[{"name": "2.weight"}]), "is damaged"),
    "another count": (claim_less, r"says 11 of the 24 entries of '0\.weight' go, its mask removes 12 of 24"),
    "another size": (claim_more, r"says 18 of the 30 entries of '0\.weight' go, its mask removes 12 of 24"),
    "newer": (lambda folder: rewrite(folder, version=2), "has version 2; this library reads up to 1: upgrade"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_is_refused(damage, tmp_path):
    a_plan().save(tmp_path)
    breaking, says = DAMAGE[damage]
    breaking(tmp_path)
    with pytest.raises(CorruptFile, match=says) as error:
        Plan.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_masks_of_another_plan_are_refused(tmp_path):
    """What a crash between the two files of a second save leaves behind."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, sparsity in ((first, 0.5), (second, 0.25)):
        folder.mkdir()
        a_plan(sparsity).save(folder)
    (second / "plan.safetensors").rename(first / "plan.safetensors")
    with pytest.raises(CorruptFile, match="of another plan"):
        Plan.load(first)


def test_a_folder_without_a_plan(tmp_path):
    with pytest.raises(BadInput, match=r"holds no plan\.json"):
        Plan.load(tmp_path)


def test_saving_leaves_nothing_beside_when_it_fails(tmp_path):
    folder = tmp_path / "none"
    with pytest.raises(OSError, match="none"):
        a_plan().save(folder)
    assert list(tmp_path.iterdir()) == []
    a_plan().save(tmp_path)
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]
