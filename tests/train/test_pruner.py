"""What a pruner promises over a run: exact counts, when they change, what it tells, and what it costs to keep."""

from __future__ import annotations

import gc
import io
import logging
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import secateurs as sc
from secateurs.core.count import removed_count


def net() -> nn.Sequential:
    """35, 21 and 6 weights, with biases and a norm that must stay."""
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3), nn.Linear(3, 2, bias=False))


def removed(pruner: sc.Pruner) -> dict[str, int]:
    """Masked entries of every weight, by counting."""
    return {name: int((~mask).sum()) for name, mask in pruner.masks.items()}


def run(
    model: nn.Module, pruner: sc.Pruner, optimizer: torch.optim.Optimizer, steps: int, x: torch.Tensor | None = None
) -> list[list[int]]:
    """Train for ``steps``; what was removed in each weight after every step."""
    rows = []
    for _ in range(steps):
        optimizer.zero_grad()
        found = model(torch.randn(4, 5) if x is None else x)
        (found[0] if isinstance(found, tuple) else found).square().sum().backward()
        optimizer.step()
        rows.append(list(removed(pruner).values()))
    return rows


def session(total: int = 20, **more: Any) -> tuple[nn.Sequential, sc.Pruner, torch.optim.Optimizer]:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = sc.Pruner(model, "gmp", **{"sparsity": 0.8, "begin": 0.2, "end": 0.7, "every": 4, "total_steps": total, **more})
    return model, pruner.attach(optimizer), optimizer


def test_counts_steps_and_history_of_a_run() -> None:
    """The cubic ramp from step 4 to 14 with an update every 4: at 4, 8, 12 and, whatever divides, at 14."""
    model, pruner, optimizer = session()
    assert pruner.history == [] and pruner.step_count == 0 and pruner.sparsity == 0 and pruner.average_density == 1
    rows = run(model, pruner, optimizer, 20)
    targets = [0.8 * (1 - (1 - t / 10) ** 3) for t in (0, 4, 8, 10)]
    assert [row["step"] for row in pruner.history] == [4, 8, 12, 14]
    assert [row["target"] for row in pruner.history] == pytest.approx(targets, abs=1e-12)
    counts = [[removed_count(n, s) for n in (35, 21, 6)] for s in targets]
    assert rows == [[0, 0, 0]] * 7 + [counts[1]] * 4 + [counts[2]] * 2 + [counts[3]] * 7
    assert counts[3] == [28, 17, 5]
    assert [row["sparsity"] for row in pruner.history] == pytest.approx([sum(c) / 62 for c in counts])
    assert pruner.step_count == 20 and pruner.sparsity == pytest.approx(50 / 62)


def test_average_density_is_the_mean_over_the_steps_taken() -> None:
    model, pruner, optimizer = session()
    rows = run(model, pruner, optimizer, 20)
    in_use = [62] + [62 - sum(row) for row in rows[:-1]]  # step t was trained under the masks of step t - 1
    assert pruner.average_density == pytest.approx(sum(in_use) / 62 / 20, abs=1e-12)
    assert pruner.average_density == pytest.approx(pruner.schedule.average_density(20), abs=0.01)  # but for rounding to counts


def test_masks_are_constant_after_the_end() -> None:
    model, pruner, optimizer = session()
    run(model, pruner, optimizer, 14)
    frozen = {name: mask.clone() for name, mask in pruner.masks.items()}
    run(model, pruner, optimizer, 10)
    assert all(torch.equal(mask, frozen[name]) for name, mask in pruner.masks.items())
    assert len(pruner.history) == 4


@pytest.mark.parametrize(
    ("begin", "end", "first", "last"),
    [(0.25, 0.75, 5, 15), (5, 15, 5, 15), (0, 1.0, 0, 20), (0.0, 20, 0, 20), (0.33, 7, 7, 7)],
)
def test_fractions_and_steps(begin: float, end: float, first: int, last: int) -> None:
    _, pruner, _ = session(begin=begin, end=end)
    assert (pruner.schedule.begin, pruner.schedule.end) == (first, last)


def test_what_is_due_at_step_zero_is_done_when_attached() -> None:
    model = net()
    pruner = sc.Pruner(model, "magnitude", sparsity=0.5)
    assert pruner.sparsity == 0
    pruner.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    assert list(pruner.masks.kept().values()) == [17, 10, 3]
    assert pruner.history == [{"step": 0, "target": 0.5, "sparsity": pytest.approx(32 / 62)}]


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_two_matrices_of_a_recurrent_layer_are_one(layer: type[nn.RNNBase]) -> None:
    model = layer(5, 4, num_layers=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", sparsity=0.7, begin=0, end=4, every=2).attach(optimizer)
    run(model, pruner, optimizer, 4, torch.randn(3, 2, 5))
    gone = removed(pruner)
    for k, width in ((0, 5), (1, 4)):
        names = [f"weight_ih_l{k}", f"weight_hh_l{k}"]
        stored = dict(model.named_parameters())
        ranked = torch.cat([stored[n].detach().abs().flatten() for n in names])
        kept = torch.cat([pruner.masks[n].flatten() for n in names])
        gates = model.weight_ih_l0.shape[0]
        assert sum(gone[n] for n in names) == removed_count(gates * (width + 4), 0.7)
        assert ranked[kept].min() >= ranked[~kept].max()
    assert len({gone["weight_ih_l0"] / 5, gone["weight_hh_l0"] / 4}) == 2, "ranked jointly, not each to the same share"


def test_every_layer_in_turn() -> None:
    """Three layers share the steps from one update to the next; after its step all have its target."""
    model, pruner, optimizer = session(begin=3, end=9, every=6, options={"order": "layerwise"}, schedule="linear", sparsity=0.5)
    rows = run(model, pruner, optimizer, 12)
    assert rows[:4] == [[0, 0, 0]] * 4
    assert rows[4:10] == [[18, 0, 0], [18, 0, 0], [18, 11, 0], [18, 11, 0], [18, 11, 3], [18, 11, 3]]


def test_one_ranking_over_all_layers() -> None:
    model, pruner, optimizer = session(options={"order": "global"})
    run(model, pruner, optimizer, 14)
    stored = dict(model.named_parameters())
    ranked = torch.cat([stored[name].detach().abs().flatten() for name in pruner.masks])
    kept = torch.cat([mask.flatten() for mask in pruner.masks.values()])
    assert int((~kept).sum()) == removed_count(62, 0.8)
    assert ranked[kept].min() > ranked[~kept].max()
    assert list(removed(pruner).values()) != [28, 17, 5], "the layers end with different sparsities"


def test_overrides_follow_the_curve_to_their_own_share() -> None:
    model, pruner, optimizer = session(overrides={"0": 0.2}, initial_sparsity=0.1)
    rows = run(model, pruner, optimizer, 20)
    half = 1 - (1 - 4 / 10) ** 3
    assert rows[7] == [removed_count(35, 0.1 + 0.1 * half), *(removed_count(n, 0.1 + 0.7 * half) for n in (21, 6))]
    assert rows[-1] == [7, 17, 5]


@settings(max_examples=40)
@given(sparsity=st.floats(0, 0.999), begin=st.integers(0, 6), span=st.integers(0, 6), every=st.integers(1, 5),
       curve=st.sampled_from(["constant", "linear", "cubic", "exponential", "cosine", "one-shot"]))  # fmt: skip
def test_exact_counts_at_the_end_whatever_the_schedule(sparsity: float, begin: int, span: int, every: int, curve: str) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    end = begin if curve == "one-shot" else begin + span
    pruner = sc.Pruner(model, "gmp", sparsity=sparsity, begin=begin, end=end, every=every, schedule=curve).attach(optimizer)
    rows = run(model, pruner, optimizer, 12)
    assert rows[-1] == [removed_count(n, sparsity) for n in (20, 12)]
    assert [row["step"] for row in pruner.history] == list(pruner.schedule.updates())


def test_finish_writes_the_zeros_and_leaves_nothing_behind() -> None:
    model, pruner, optimizer = session()
    keys, types = list(net().state_dict()), [type(m) for m in net().modules()]
    run(model, pruner, optimizer, 20)
    assert list(model.state_dict()) == keys
    model.eval()
    x = torch.randn(9, 5)
    masked = model(x)
    assert pruner.finish() is model
    assert torch.equal(model(x), masked)
    assert list(model.state_dict()) == keys and [type(m) for m in model.modules()] == types
    assert all(vars(m).keys() == vars(n).keys() for m, n in zip(model.modules(), net().modules(), strict=True))
    for name, mask in pruner.masks.items():
        weight = model.get_parameter(name)
        assert (weight[~mask] == 0).all() and int(torch.count_nonzero(weight)) == int(mask.sum())
    before = pruner.step_count
    run(model, pruner, optimizer, 1)
    assert pruner.step_count == before, "the hook is gone"


def test_report_and_plan_say_what_is_masked() -> None:
    model, pruner, optimizer = session()
    run(model, pruner, optimizer, 20)
    rows = {row["name"]: row["removed"] for row in pruner.report()}
    assert rows == {"0.weight": 28, "2.weight": 17, "3.weight": 5, "total": 50}
    plan = pruner.plan()
    assert (plan.removed, plan.size) == (50, 62) and plan.recipe["method"] == "gmp"
    pruner.masks["0.weight"].fill_(True)
    assert plan.removed == 50 and not plan.masks["0.weight"].all(), "a plan is of its moment"


def test_a_run_cut_short_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model, pruner, optimizer = session()
    run(model, pruner, optimizer, 9)
    with caplog.at_level(logging.WARNING, logger="secateurs"):
        pruner.finish()
    assert "step 9" in caplog.text and "14" in caplog.text


def test_detach_and_attach_again_goes_on() -> None:
    model, pruner, optimizer = session()
    run(model, pruner, optimizer, 9)
    masks = {name: mask.clone() for name, mask in pruner.masks.items()}
    pruner.detach()
    assert type(model[0]) is nn.Linear and isinstance(model[0].weight, nn.Parameter)
    pruner.attach(optimizer)
    assert all(torch.equal(pruner.masks[name], masks[name]) for name in masks)
    assert (model[0].weight[~masks["0.weight"]] == 0).all()
    assert run(model, pruner, optimizer, 11)[-1] == [28, 17, 5]


def test_a_recipe_stands_in_for_the_method() -> None:
    recipe = sc.Recipe(method="gmp", sparsity=0.5, begin=0, end=4)
    pruner = sc.Pruner(net(), recipe, every=2)
    assert (pruner.recipe.sparsity, pruner.recipe.every, pruner.schedule.end) == (0.5, 2, 4)


def test_frozen_weights_are_left_alone_with_the_reason() -> None:
    model = net()
    model[2].weight.requires_grad_(False)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, end=4)
    assert list(pruner.masks) == ["0.weight", "3.weight"]
    assert [left.reason for left in pruner.survey.left if left.name == "2.weight"] == ["frozen (requires_grad=False)"]


# -- what it costs to keep --------------------------------------------------------------------------------------------------


def own_bytes(pruner: sc.Pruner, model: nn.Module) -> int:
    """Storage reachable from the pruner that is not the model's: every tensor behind its attributes, each storage once."""
    theirs = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: set[int] = set()
    storages: dict[int, int] = {}
    todo: list[Any] = [pruner]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, (type, nn.Module, torch.optim.Optimizer)):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        elif type(thing).__module__.startswith("secateurs") or isinstance(thing, (dict, list, tuple, set, frozenset)):
            todo += gc.get_referents(thing)
    return sum(size for where, size in storages.items() if where not in theirs)


@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
def test_extra_state_is_a_byte_per_weight_and_packed_a_bit(variant: str) -> None:
    model = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 100))
    weights = 300 * 400 + 400 * 100
    optimizer = torch.optim.Adam(model.parameters())
    pruner = sc.Pruner(model, "gmp", sparsity=0.9, begin=0, end=2, every=1, enforcement=variant).attach(optimizer)
    for _ in range(2):
        model(torch.randn(2, 300)).sum().backward()
        optimizer.step()
    assert own_bytes(pruner, model) == weights
    assert not any(isinstance(v, torch.Tensor) for m in model.modules() for v in vars(m).values())
    state = pruner.state_dict()
    assert sum(entry["bits"].numel() for entry in state["masks"].values()) == weights // 8
    file = io.BytesIO()
    torch.save(state, file)
    assert len(file.getvalue()) < weights // 8 + 8192


# -- elsewhere --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", ["keep", "overwrite", "straight-through"])
def test_masks_do_not_depend_on_the_device(variant: str) -> None:
    """The same weights give the same masks; the model may move after it was attached."""
    here = net()
    there = net()
    there.load_state_dict(here.state_dict())
    masks = []
    for model, device in ((here, "cpu"), (there, "cuda")):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        pruner = sc.Pruner(model, "gmp", sparsity=0.7, begin=0, end=2, every=1, enforcement=variant).attach(optimizer)
        model.to(device)
        run(model, pruner, optimizer, 3, torch.ones(4, 5, device=device))
        masks.append({name: mask.cpu() for name, mask in pruner.masks.items()})
        pruner.finish()
    assert masks[0].keys() == masks[1].keys() and all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
