"""``sc.prune`` with calibration: exact counts, survivors to the bit, allocations, kill and resume, what is left alone."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.grid import Grid
from secateurs.core.obs_factor import NotPositiveDefinite
from secateurs.errors import BadInput, CorruptFile, NotFinite
from secateurs.files import write_whole
from secateurs.train import block_masks
from secateurs.train.dense import Dense
from secateurs.train.losses import default_loss
from secateurs.train.walk import state as walk_state
from tests.models.families import batches, family


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 8))


def inputs(count=3, tokens=40):
    """Correlated columns of unequal size."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(16, 16, generator=generator) * torch.logspace(-1, 1, 16)
    return [torch.randn(tokens, 16, generator=generator) @ mixing for _ in range(count)]


def removed(pruned):
    return {entry.name: entry.removed for entry in pruned.plan.entries}


def state(model):
    return copy.deepcopy(model.state_dict())


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def llama():
    pytest.importorskip("transformers")
    return family("llama", torch.float32)


TEXT = batches("llama")
BLOCK = {"q_proj": 256, "k_proj": 128, "v_proj": 128, "o_proj": 256, "gate_proj": 384, "up_proj": 384, "down_proj": 384}


# -- any module


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_one_layer_is_enough(method):
    pruned = sc.prune(nn.Sequential(nn.Linear(16, 4)), method, sparsity=0.5, calibration=[torch.randn(9, 16)])
    assert removed(pruned) == {"0.weight": 32}


def test_every_row_loses_the_same_by_wanda_and_what_stays_is_untouched():
    model = plain()
    before = state(model)
    pruned = sc.prune(model, "wanda", sparsity=0.6, calibration=inputs())
    for name, p in pruned.model.named_parameters():
        if p.ndim == 2:
            assert (p == 0).sum(1).tolist() == [round(0.6 * p.shape[1])] * p.shape[0]
            assert torch.equal(p[p != 0], before[name][p != 0])
        else:
            assert torch.equal(p, before[name])
    assert same(before, state(model)) and pruned.model is not model
    assert sc.verify(pruned.model, pruned.plan).ok


@pytest.mark.parametrize("propagate", ["pruned", "dense"])
def test_a_layer_is_judged_by_what_the_one_before_it_gives(propagate):
    model, data = plain(), inputs()
    done = sc.prune(model, "wanda", sparsity=0.75, calibration=data, propagate=propagate)
    masks = {}
    for name, before in (("pruned", done.model), ("dense", model)):
        fed = torch.cat([before[:2](x) for x in data])
        scores = model[2].weight.abs() * fed.square().sum(0).sqrt()
        masks[name] = scores > scores.sort(1).values[:, 8:9]
    assert torch.equal(done.plan.masks["2.weight"], masks[propagate])
    assert not torch.equal(masks["pruned"], masks["dense"])


def test_sparsegpt_reports_the_error_its_layer_makes():
    model, data = nn.Sequential(nn.Linear(16, 12, bias=False)), inputs()
    pruned = sc.prune(model, "sparsegpt", sparsity=0.5, calibration=data, options={"dampening": 1e-6})
    x = torch.cat(data)
    with torch.no_grad():
        exact = float((pruned.model(x) - model(x)).square().sum() / model(x).square().sum())
    assert pruned.report[0]["error"] == pytest.approx(exact, rel=1e-2)
    assert pruned.report[0]["dampening"] == 1e-6
    assert "error" not in pruned.report[-1]


def test_sparsegpt_beats_wanda_beats_magnitude_on_the_layers_outputs():
    model, x = nn.Sequential(nn.Linear(16, 12, bias=False)), torch.cat(inputs())

    def error(method):
        calibration = None if method == "magnitude" else [x]
        return (sc.prune(model, method, sparsity=0.5, calibration=calibration).model(x) - model(x)).square().sum().item()

    assert error("sparsegpt") < error("wanda") < error("magnitude")


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "gblm"])
def test_two_of_four(method):
    data = [(x, torch.randint(8, (40,))) for x in inputs()]
    pruned = sc.prune(plain(), method, structure="2:4", calibration=data)
    for p in (p for p in pruned.model.parameters() if p.ndim == 2):
        assert ((p != 0).view(-1, 4).sum(1) == 2).all()


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_nothing_is_removed_at_zero(method):
    model = plain()
    assert same(state(sc.prune(model, method, sparsity=0.0, calibration=inputs()).model), state(model))


@pytest.mark.parametrize("allocation", ["uniform", "owl", "ecoflap", "global", "erk", "lamp"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "gblm"])
def test_totals_are_exact_under_every_allocation(method, allocation):
    data = [(x, torch.randint(8, (40,))) for x in inputs(2)]
    pruned = sc.prune(plain(), method, sparsity=0.5, allocation=allocation, calibration=data)
    assert pruned.plan.removed == 296  # of 192 + 240 + 160
    if method != "sparsegpt":  # rows differ by one weight at most
        assert all(len({int(n) for n in (p == 0).sum(1)}) <= 2 for p in pruned.model.parameters() if p.ndim == 2)


def test_shares_by_layer_and_a_promised_total():
    shares = {"0.weight": 0.25, "2.weight": 0.5, "4.weight": 0.75}
    pruned = sc.prune(plain(), "wanda", allocation=shares, calibration=inputs())
    assert removed(pruned) == {"0.weight": 48, "2.weight": 120, "4.weight": 120}
    assert pruned.recipe.allocation == "explicit" and pruned.recipe.overrides == shares
    for method in ("wanda", "sparsegpt"):
        assert sc.prune(plain(), method, keep=333, calibration=inputs()).plan.removed == 592 - 333


def test_another_criterion_chooses_and_the_solver_makes_up_for_it():
    model, data = nn.Sequential(nn.Linear(16, 12, bias=False)), inputs()
    options = {"mask": "criterion"}
    solved = sc.prune(model, "sparsegpt", sparsity=0.5, criterion="magnitude", calibration=data, options=options)
    only = sc.prune(model, "magnitude", sparsity=0.5)
    assert solved.plan.diff(only.plan) == []
    x = torch.cat(data)
    assert (solved.model(x) - model(x)).norm() < (only.model(x) - model(x)).norm()
    by_wanda = sc.prune(model, "sparsegpt", sparsity=0.5, calibration=data, options=options)
    matrix_wise = sc.prune(model, "magnitude", criterion="wanda", sparsity=0.5, calibration=data)
    assert by_wanda.plan.diff(matrix_wise.plan) == []


def test_gradients_are_those_of_the_dense_model():
    model, data = plain(), [(x, torch.randint(8, (40,))) for x in inputs()]
    dense = Dense(model, sc.survey(model), data, default_loss, 0)
    weight = sc.survey(model).weights[2]
    pruned = sc.prune(model, "gblm", sparsity=0.5, calibration=data, options={"scale": 1e6})  # the gradient alone counts
    scores = (weight.parameter.abs() * dense(weight)["gradient-magnitude"]).detach()
    assert torch.equal(pruned.plan.masks["4.weight"], scores > scores.sort(1).values[:, 9:10])
    assert all(p.grad is None for p in model.parameters())


def test_gblm_without_gradients_is_wanda_and_its_norms_differ():
    model, data = plain(), [(x, torch.randint(8, (40,))) for x in inputs()]
    wanda = sc.prune(model, "wanda", sparsity=0.5, calibration=data)
    masks = {}
    for options in ({"scale": 0}, {"norm": "l1", "scale": 1}, {"norm": "l2", "scale": 1}):
        pruned = sc.prune(model, "gblm", sparsity=0.5, calibration=data, options=options)
        masks[str(options)] = pruned.plan
    none, one, two = masks.values()
    assert none.diff(wanda.plan) == [] and one.diff(wanda.plan) and two.diff(one)


def test_alpha_removes_as_many_of_the_matrix_and_not_of_every_row():
    model, data = plain(), inputs()
    rows = sc.prune(model, "wanda", sparsity=0.5, calibration=data)
    alpha = sc.prune(model, "wanda", sparsity=0.5, calibration=data, options={"variant": "alpha"})
    assert removed(alpha) == removed(rows)
    assert len(set((alpha.model[2].weight == 0).sum(1).tolist())) > 1
    with pytest.raises(BadInput, match="variant='alpha' removes single weights of a row"):
        sc.prune(model, "wanda", structure="2:4", calibration=data, options={"variant": "alpha"})


@pytest.mark.parametrize("bits", [4, 8])
def test_what_stays_lies_on_a_grid(bits):
    pruned = sc.prune(plain(), "sparsegpt", sparsity=0.5, calibration=inputs(), options={"quantize": f"int{bits}"})
    assert removed(pruned) == {"0.weight": 96, "2.weight": 120, "4.weight": 80}
    for before, after in zip(plain().parameters(), pruned.model.parameters(), strict=True):
        if after.ndim == 2:
            assert torch.allclose(Grid.fit(before.detach(), bits).round(after.detach().T).T, after, atol=1e-6)


# -- language models


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "gblm"])
def test_a_language_model(llama, method):
    before, told = state(llama), []
    pruned = sc.prune(llama, method, sparsity=0.5, calibration=TEXT, progress=told.append)
    counts = {name: n // 2 for name, n in BLOCK.items()}
    assert {n.split(".")[-2]: k for n, k in removed(pruned).items()} == counts and len(pruned.plan.entries) == 14
    assert {item.name: item.reason for item in pruned.left}["model.embed_tokens.weight"]
    assert any("lm_head" in item.name and "outside the blocks" in item.reason for item in pruned.left)
    assert same(state(llama), before)
    assert [(t.name, t.number, t.total, t.size, t.removed) for t in told] == [
        ("model.layers.0", 1, 2, 1920, 960), ("model.layers.1", 2, 2, 1920, 960)]  # fmt: skip
    assert all((t.error is not None) == (method == "sparsegpt") for t in told)


@pytest.mark.parametrize("name", ["gpt2", "opt", "mixtral", "t5", "vit"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_other_families(name, method):
    pytest.importorskip("transformers")
    model = family(name, torch.float32)
    pruned = sc.prune(model, method, sparsity=0.5, calibration=batches(name, 3, torch.float32))
    assert all(2 * entry.removed == entry.size for entry in pruned.plan.entries)
    assert sc.verify(pruned.model, pruned.plan).ok
    if method == "wanda":
        for entry in pruned.plan.entries:
            old, new = model.get_parameter(entry.name), pruned.model.get_parameter(entry.name)
            assert torch.equal(new[new != 0], old[new != 0])


def test_a_range_of_blocks(llama):
    pruned = sc.prune(llama, "wanda", sparsity=0.5, calibration=TEXT, only_blocks="1:")
    assert {name.split(".")[2] for name in removed(pruned)} == {"1"} and pruned.plan.removed == 960
    assert sum(item.reason == "not in blocks 1:" for item in pruned.left) == 7
    for bad in ("1:1", "0:3", "one", "2:1", "-1:2"):
        with pytest.raises(BadInput, match=f"only_blocks='{bad}': give a range of the 2 blocks, as '0:2'"):
            sc.prune(llama, "wanda", sparsity=0.5, calibration=TEXT, only_blocks=bad)


def test_plain_ids_mappings_and_padding_agree(llama):
    ids = [batch["input_ids"] for batch in TEXT]
    padded = [nn.functional.pad(i, (0, 3)) for i in ids]
    masked = [{"input_ids": p, "attention_mask": (torch.arange(9) < 6).long().expand(2, 9)} for p in padded]
    plans = [sc.prune(llama, "wanda", sparsity=0.5, calibration=given).plan for given in (ids, TEXT, masked)]
    assert plans[0].diff(plans[1]) == [] == plans[0].diff(plans[2])


def test_rescaled_columns_do_not_change_what_wanda_removes(llama):
    """The norm before a projection and its columns scaled against each other: the same function."""
    factors = torch.logspace(-2, 2, 16)
    other = copy.deepcopy(llama)
    layer = other.model.layers[0]
    with torch.no_grad():
        layer.post_attention_layernorm.weight *= factors
        layer.mlp.up_proj.weight /= factors
        layer.mlp.gate_proj.weight /= factors
    names = [f"model.layers.0.mlp.{n}_proj.weight" for n in ("up", "gate")]

    def masks(model, **settings):
        return sc.prune(model, sparsity=0.5, include=names, **settings).plan

    assert masks(llama, method="wanda", calibration=TEXT).diff(masks(other, method="wanda", calibration=TEXT)) == []
    assert masks(llama, method="magnitude").diff(masks(other, method="magnitude"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("settings", [{"method": "sparsegpt"}, {"method": "sparsegpt", "options": {"quantize": "int4"}},
                                      {"method": "wanda", "allocation": "owl"}], ids=str)  # fmt: skip
def test_a_killed_run_ends_with_the_same_bits(llama, settings, tmp_path):
    whole = sc.prune(llama, **settings, sparsity=0.5, calibration=TEXT)

    def kill(done):
        raise Killed

    with pytest.raises(Killed):
        sc.prune(llama, **settings, sparsity=0.5, calibration=TEXT, state=tmp_path, progress=kill)
    assert json.loads((tmp_path / "walk.json").read_text())["finished"]
    resumed = sc.prune(llama, **settings, sparsity=0.5, calibration=TEXT, state=tmp_path)
    assert same(state(resumed.model), state(whole.model))
    assert resumed.plan.diff(whole.plan) == [] and resumed.report == whole.report
    with pytest.raises(BadInput, match="another run, which differs in settings"):
        sc.prune(llama, **settings, sparsity=0.6, calibration=TEXT, state=tmp_path)
    masks = tmp_path / "masks-00000.safetensors"
    masks.write_bytes(masks.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match="masks-00000"):
        sc.prune(llama, **settings, sparsity=0.5, calibration=TEXT, state=tmp_path)


def test_another_loss_does_not_take_a_run_over(tmp_path):
    """It is known by what it finds: the gradients, and with ECoFLaP the counts, are settings too."""
    data = [(x, torch.randint(8, (40,), generator=torch.Generator().manual_seed(0))) for x in inputs(1)]

    def loss(factor):
        return lambda model, batch: nn.functional.cross_entropy(factor * model(batch[0]), batch[1])

    def kill(done):
        raise Killed

    cases = {"gradients": {"method": "gblm"}, "counts": {"method": "wanda", "allocation": "ecoflap"}}
    for what, settings in cases.items():
        words = {**settings, "sparsity": 0.5, "calibration": data, "state": tmp_path / what}
        with pytest.raises(Killed):
            sc.prune(plain(), **words, loss=loss(1.0), progress=kill)
        with pytest.raises(BadInput, match=rf"another run, which differs in settings \({what}\)"):
            sc.prune(plain(), **words, loss=loss(-3.0))
        resumed = sc.prune(plain(), **words, loss=loss(1.0))  # another object that finds the same
        del words["state"]
        assert same(state(resumed.model), state(sc.prune(plain(), **words, loss=loss(1.0)).model))


def test_killed_before_or_after_any_file_is_written(llama, tmp_path, monkeypatch):
    """Every write of a run in turn: between the state's folder and its list, masks, blocks and the list again."""
    settings = {"method": "sparsegpt", "sparsity": 0.5, "calibration": TEXT}
    whole, moment = sc.prune(llama, **settings), 0
    while True:
        calls = iter(range(1000))
        folder = tmp_path / str(moment)

        def write(path, content, calls=calls, moment=moment):
            now = next(calls)
            if 2 * now == moment:
                path.with_name(f".{path.name}.0123abcd").write_bytes(content[:9])  # what a killed writer leaves
                raise Killed
            write_whole(path, content)
            if 2 * now + 1 == moment:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(walk_state, "write_whole", write)
            patch.setattr(block_masks, "write_whole", write)
            try:
                sc.prune(llama, **settings, state=folder)
                break
            except Killed:
                moment += 1
        resumed = sc.prune(llama, **settings, state=folder)
        assert same(state(resumed.model), state(whole.model))
        assert resumed.plan.diff(whole.plan) == [] and resumed.report == whole.report
    assert moment == 2 * (1 + 2 * 3)  # the empty list, then masks, tensors and the list for two blocks


# -- what cannot work


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"calibration": []}, "calibration gave no batch"),
        ({"calibration": torch.zeros(3, 16)}, r"calibration is a Tensor: .* \[batch\]"),
        ({"calibration": inputs(), "blocks": "layers"}, "blocks='layers' is no module of this model"),
        ({"calibration": inputs(), "propagate": "prunde"}, "did you mean 'pruned'"),
        ({"calibration": inputs(), "structure": "3:7"}, "'3:7' does not fit '0.weight'"),
        ({"calibration": inputs(), "options": {"dampening": 1}}, "'wanda' has no option 'dampening'"),
        ({"calibration": inputs(), "method": "sparsegpt", "structure": "rows"}, "it does not go with structure='rows'"),
        ({"calibration": inputs(), "method": "sparsegpt", "allocation": "per-row"}, "does not go with allocation='per-row'"),
        ({"calibration": inputs(), "method": "sparsegpt", "options": {"dampening": -1}}, "dampening=-1 of 'sparsegpt'"),
        ({"calibration": [torch.zeros(4, 16)], "method": "sparsegpt"}, "no calibration data reached '0.weight'"),
        ({"calibration": inputs(), "method": "gblm"}, "have no labels"),
        ({"method": "magnitude", "state": "x"}, "blocks=, only_blocks=, compute= and state= are for methods that go block"),
    ],
    ids=str,
)
def test_bad_input(settings, says):
    model = plain()
    before = state(model)
    with pytest.raises(BadInput, match=says):
        sc.prune(model, **{"method": "wanda", **({} if "structure" in settings else {"sparsity": 0.5}), **settings})
    assert same(before, state(model))


def test_a_hessian_without_a_factor_stops_with_the_name():
    data = [torch.randn(2, 16)]  # two tokens for sixteen inputs
    with pytest.raises(NotPositiveDefinite, match=r"'0\.weight'.*dampening=0"):
        sc.prune(plain(), "sparsegpt", sparsity=0.5, calibration=data, options={"dampening": 0})
    options = {"dampening": 0, "increase_dampening": True}
    pruned = sc.prune(plain(), "sparsegpt", sparsity=0.5, calibration=data, options=options)
    assert pruned.plan.removed == 296 and pruned.report[0]["dampening"] > 0


def test_numbers_that_are_none_are_named():
    with pytest.raises(NotFinite, match=r"'0\.weight'"):
        sc.prune(plain(), "wanda", sparsity=0.5, calibration=[torch.full((2, 16), float("inf"))])


def test_an_expert_without_tokens_is_left_alone():
    pytest.importorskip("transformers")
    model = family("mixtral", torch.float32, num_experts_per_tok=1)
    one = [{"input_ids": torch.tensor([[5]])}]
    pruned = sc.prune(model, "wanda", sparsity=0.5, calibration=one)
    experts = {item.name for item in pruned.left if "no calibration token reached its experts" in item.reason}
    assert experts == {f"model.layers.{i}.mlp.experts.{n}_proj" for i in (0, 1) for n in ("gate_up", "down")}
    assert all(torch.equal(model.get_parameter(name), pruned.model.get_parameter(name)) for name in experts)
    with pytest.raises(BadInput, match="the total that was asked for cannot be met"):
        sc.prune(model, "wanda", keep=2000, calibration=one)
