"""sc.prune of structures, end to end: exact predictions, proof, replay, undo, bad input."""

import copy

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.apply import Check
from secateurs.errors import BadInput, BrokenPromise
from secateurs.measure import multiply_adds, sizes
from secateurs.train import structured
from tests.planning.nets import IMAGES, NETS, SEQUENCES, WORDS, Attention, Residual, Tagger, convolutions

LABELS = torch.tensor([0, 3])
BATCHES = [(IMAGES, LABELS), (-IMAGES, LABELS)]


def state(model):
    return copy.deepcopy(model.state_dict())


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


AMOUNTS = ({"flops": 0.6}, {"params": 0.5}, {"bytes": 0.5}, {"ratio": 0.4, "scope": "local"})


@pytest.mark.parametrize(("net", "amount"), list(zip(NETS, AMOUNTS, strict=True)))
def test_predictions_are_the_counts_of_the_smaller_model(net, amount):
    build, example = NETS[net]
    model = build().eval()
    before = state(model)
    done = sc.prune(model, "groups", example=example, **amount)
    size = sizes(done.model)
    assert done.plan.after.parameters == size.parameters < sizes(model).parameters
    assert done.plan.after.bytes == size.dense_bytes
    assert done.plan.after.multiply_adds == multiply_adds(done.model, example).dense
    assert done.verification.ok and equal(before, state(model))


def test_the_result_is_of_the_same_class_and_takes_other_batches():
    done = sc.prune(Residual().eval(), "channels", example=IMAGES, flops=0.5)
    assert type(done.model) is Residual and not done.is_exported and done.why == ""
    assert done.model(torch.rand(3, 3, 12, 12)).shape == (3, 5)
    assert done.model.depthwise.groups == done.model.widen.out_channels < 12


def test_a_plan_is_what_prune_does():
    model = Residual().eval()
    plan = sc.plan(model, "channels", example=IMAGES, flops=0.5)
    done = sc.prune(model, "channels", example=IMAGES, flops=0.5)
    assert plan.diff(done.plan) == [] and plan.after == done.plan.after and plan.recipe == done.plan.recipe


def test_replay_on_a_fresh_copy_gives_the_same_model(tmp_path):
    first = sc.prune(Residual().eval(), "channels", example=IMAGES, flops=0.5)
    first.plan.save(tmp_path)
    again = sc.prune(Residual().eval(), sc.GroupPlan.load(tmp_path), example=IMAGES)
    assert equal(state(first.model), state(again.model)) and again.verification.ok


def test_undo_puts_trained_values_among_the_removed_ones():
    model = Residual().eval()
    done = sc.prune(model, "channels", example=IMAGES, flops=0.5, scope="local")
    with torch.no_grad():
        for p in done.model.parameters():
            p.add_(1)
    grown = Residual().eval()
    done.undo(grown)
    keep = {e.name: done.plan.keeps[e.name].tolist() for e in done.plan.entries}
    rows, columns = keep["widen.weight:0"], keep["stem.weight:0"]
    for row in range(12):
        for column in range(8):
            more = 1 if row in rows and column in columns else 0
            assert torch.equal(grown.widen.weight[row, column], model.widen.weight[row, column] + more)


def test_undo_without_training_gives_the_dense_model():
    model, grown = Residual().eval(), Residual().eval()
    sc.prune(model, "channels", example=IMAGES, flops=0.5).undo(grown)
    assert equal(state(model), state(grown))
    with pytest.raises(BadInput, match="not the same model"):
        sc.prune(model, "channels", example=IMAGES, flops=0.5).undo(convolutions())


def test_inplace_changes_the_model_itself():
    model = Residual().eval()
    done = sc.prune(model, "channels", example=IMAGES, flops=0.5, inplace=True)
    assert done.model is model and sizes(model).parameters == done.plan.after.parameters
    with pytest.raises(BadInput, match=r"inplace=True: the pruned model is an exported program, not a Attention"):
        sc.prune(Attention().eval(), "groups", example=SEQUENCES, params=0.5, inplace=True)


def test_a_broken_promise_changes_nothing(monkeypatch):
    def wrong(*_, **__):
        return sc.Verification((Check("outputs", False, "largest difference 0.5"),))

    monkeypatch.setattr(structured, "verify_shrunk", wrong)
    model = Residual().eval()
    before = state(model)
    with pytest.raises(BrokenPromise, match=r"largest difference 0\.5"):
        sc.prune(model, "channels", example=IMAGES, flops=0.5, inplace=True)
    assert equal(before, state(model))


def test_the_smallest_channel_goes():
    model = convolutions()
    with torch.no_grad():
        model[0].weight[2] = 0
        model[3].weight[:, 2] = 0
        model[1].weight[2] = 0
    done = sc.prune(model, "channels", example=IMAGES, ratio=0.1, scope="global")
    assert {name: keep.tolist() for name, keep in done.plan.keeps.items()} == {"0.weight:0": [0, 1, 3]}


def test_taylor_reads_the_batches_and_leaves_the_model():
    model = convolutions().train()
    before, modes = state(model), [m.training for m in model.modules()]
    done = sc.prune(model, "taylor", structures=["channels"], example=IMAGES, ratio=0.3, calibration=BATCHES)
    same = sc.prune(model, "channels", criterion="taylor", example=IMAGES, ratio=0.3, calibration=iter(BATCHES))
    assert done.plan.diff(same.plan) == [] and done.recipe.criterion == "taylor"
    assert equal(before, state(model)) and modes == [m.training for m in model.modules()]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_taylor_removes_the_channel_no_loss_depends_on():
    model = convolutions()
    with torch.no_grad():
        model[8].weight[:, 4] = 0  # nothing reads it: no gradient and no change of the loss
    done = sc.prune(model, "channels", criterion="taylor", example=IMAGES, ratio=0.1, calibration=BATCHES)
    assert done.plan.keeps["3.weight:0"].tolist() == [0, 1, 2, 3, 5]


def test_random_follows_the_seed():
    plans = [sc.plan(Residual().eval(), "channels", criterion="random", example=IMAGES, flops=0.5, seed=s) for s in (0, 0, 1)]
    assert plans[0].diff(plans[1]) == [] and plans[0].diff(plans[2]) != []


def test_steps_score_again_what_is_left():
    """Magnitudes of what remains: in several steps the columns of removed channels no longer count."""
    settings = {"example": IMAGES, "flops": 0.4, "scope": "global"}
    one, many = (sc.plan(Residual().eval(), "channels", steps=s, **settings) for s in (1, 5))
    assert many.after.multiply_adds <= 0.4 * many.before.multiply_adds
    assert one.diff(many) != []
    again = sc.plan(Residual().eval(), "channels", steps=5, **settings)
    assert many.diff(again) == []


def test_steps_with_ragged_children_and_ties():
    for build, example in ((Attention, SEQUENCES), (Tagger, WORDS)):
        done = sc.prune(build().eval(), "groups", example=example, params=0.5, steps=3)
        assert done.verification.ok and done.plan.after.parameters <= done.plan.before.parameters // 2


def test_widths_are_rounded_and_the_budget_is_met():
    done = sc.prune(Residual().eval(), "channels", example=IMAGES, flops=0.6, round_to=4)
    assert {done.model.widen.in_channels % 4, done.model.widen.out_channels % 4} == {0}
    assert done.plan.after.multiply_adds <= 0.6 * done.plan.before.multiply_adds


def test_a_latency_budget_is_held_to_the_measured_table():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 144, 5))
    done = sc.prune(model.eval(), "channels", example=torch.rand(8, 3, 16, 16), latency=0.8)
    assert done.plan.removed > 0 and done.verification.ok


@pytest.mark.parametrize(("settings", "says"), [
    ({"example": None, "flops": 0.5}, r"pass example=, its inputs"),
    ({}, r"how much\? give ratio=0.3"),
    ({"flops": 0.5, "ratio": 0.3}, "ratio and flops say the same thing twice"),
    ({"flops": 0.5, "sparsity": 0.3}, "sparsity and flops say the same thing twice"),
    ({"sparsity": 0.3}, r"how much\?|sparsity=0.3 is for single weights"),
    ({"flops": 0.5, "allocation": "erk"}, "allocation='erk' is for single weights"),
    ({"flops": 0.0001}, r"flops=0.0001 is out of reach"),
    ({"flops": 0.5, "criterion": "taylor"}, "criterion='taylor' needs calibration batches"),
    ({"flops": 0.5, "criterion": "taylor", "calibration": []}, "gave no batch"),
    ({"flops": 0.5, "criterion": "magnitud"}, "did you mean 'magnitude'"),
    ({"flops": 0.5, "blocks": "layers"}, "blocks= is for methods that go block by block"),
    ({"flops": 0.5, "round_to": 0}, "round_to=0"),
    ({"ratio": 1.0}, "ratio=1.0"),
])  # fmt: skip
def test_bad_input_changes_nothing(settings, says):
    model = convolutions()
    before = state(model)
    with pytest.raises(BadInput, match=says):
        sc.prune(model, "channels", **{"example": IMAGES, **settings}, inplace=True)
    assert equal(before, state(model))


@pytest.mark.parametrize(("method", "settings", "says"), [
    ("magnitude", {"flops": 0.5}, r"flops=0.5 is for whole structures: name them"),
    ("magnitude", {"sparsity": 0.5, "example": IMAGES}, "example= is for structures"),
    ("gmp", {"structures": ["channels"], "flops": 0.5, "example": IMAGES}, "prunes while a model trains"),
    ("magnitude", {"structures": ["channel"], "flops": 0.5}, "did you mean 'channels'"),
    ("magnitude", {"structures": ["channels"], "structure": "2:4", "flops": 0.5}, "makes zeros"),
    ("channels", {"example": "an image", "flops": 0.5}, "example='an image'"),
])  # fmt: skip
def test_what_does_not_go_together_is_said(method, settings, says):
    with pytest.raises(BadInput, match=says):
        sc.prune(convolutions(), method, **settings)


def test_what_trains_or_streams_refuses_structures():
    says = r"structures=\['channels'\] make tensors smaller, at once.*prune\(model, 'magnitude', structures=\['channels'\]"
    with pytest.raises(BadInput, match=says):
        sc.Pruner(convolutions(), sc.Recipe("gmp", structures=["channels"], ratio=0.5))


def test_a_plan_needs_structures():
    with pytest.raises(BadInput, match="a plan of whole structures needs some"):
        sc.plan(convolutions(), "magnitude", sparsity=0.5)


def test_a_replayed_plan_takes_no_settings():
    plan = sc.plan(convolutions(), "channels", example=IMAGES, flops=0.5)
    with pytest.raises(BadInput, match="a plan says everything: leave out flops"):
        sc.prune(convolutions(), plan, example=IMAGES, flops=0.3)


def test_a_list_as_structure_names_several():
    plan = sc.plan(Attention().eval(), "magnitude", structure=["heads", "neurons"], example=SEQUENCES, ratio=0.5, scope="local")
    assert [(e.kind, e.kept) for e in plan.entries] == [("heads", 2), ("neurons", 5)]


def test_a_wrapped_model_is_pruned_inside():
    done = sc.prune(torch.optim.swa_utils.AveragedModel(convolutions()), "channels", example=IMAGES, flops=0.5)
    assert type(done.model) is nn.Sequential


class Experts(nn.Module):
    """Four experts, all of which every input uses; a stream of 6 that is embedded, read and written."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(9, 6), nn.Linear(6, 3)
        self.up, self.down = nn.Parameter(torch.randn(4, 6, 5)), nn.Parameter(torch.randn(4, 5, 6))
        self.eval()

    def forward(self, ids):
        x = self.words(ids)
        inner = torch.bmm(x.view(1, 10, -1).expand(len(self.up), -1, -1), self.up).relu()
        return self.head(x + torch.bmm(inner, self.down).sum(0).view_as(x))


def test_experts_leave_whole():
    done = sc.prune(Experts(), "experts", example=WORDS, ratio=0.5)
    assert done.plan.removed == 2 and done.model.up.shape == (2, 6, 5) and done.model.down.shape == (2, 5, 6)


def test_the_width_goes_by_the_name_of_the_embedding():
    done = sc.prune(Experts(), "width", example=WORDS, include=["words"], ratio=0.5)
    (entry,) = done.plan.entries
    assert (entry.kind, entry.kept) == ("width", 3)
    assert {"words.weight:1", "up:1", "down:2", "head.weight:1"} <= set(entry.members)
    assert done.model.words.weight.shape == (9, 3) and done.model.up.shape == (4, 3, 5)


def test_verify_holds_a_pruned_model_to_its_plan():
    dense = Residual().eval()
    done = sc.prune(dense, "channels", example=IMAGES, flops=0.5)
    assert [check.name for check in sc.verify(done.model, done.plan).checks] == ["planned parameters"]
    found = sc.verify(done.model, done.plan, dense=dense, example=IMAGES)
    assert found.ok and len(found.checks) == 6
    with torch.no_grad():
        done.model.stem.weight[0, 0, 0, 0] += 1e-5
    assert not sc.verify(done.model, done.plan, dense=dense, example=IMAGES).ok
    assert not sc.verify(dense, done.plan).ok
    with pytest.raises(BadInput, match="example="):
        sc.verify(done.model, done.plan, dense=dense)


def test_every_kind_of_group_is_a_structure_by_its_own_word():
    done = sc.prune(Tagger().eval(), "hidden", example=WORDS, ratio=0.5)
    assert {entry.kind for entry in done.plan.entries} == {"hidden"} and done.model.lstm.hidden_size == 3
