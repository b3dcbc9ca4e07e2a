"""OBSPA: costs and fit against brute force, duplicates, sources of inputs, networks of other kinds, optimizers."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput
from secateurs.papers.structures.obspa import Obspa, costs
from tests.planning.nets import IMAGES, SEQUENCES, Attention, Residual

torch.manual_seed(0)
W = torch.randn(3, 6, dtype=torch.float64)
X = torch.randn(6, 40, dtype=torch.float64)
BLOCKS = torch.tensor([[0, 1], [2, 3], [4, 5]])


def test_a_cost_is_the_error_that_the_best_refit_leaves():
    found = costs(W, X @ X.T, BLOCKS, dampening=0.0)
    for block, cost in zip(BLOCKS.tolist(), found.tolist(), strict=True):
        kept = [k for k in range(6) if k not in block]
        best = torch.linalg.lstsq(X[kept].T, (W @ X).T).solution.T
        assert cost == pytest.approx(float((W @ X - best @ X[kept]).square().sum()), rel=1e-9)


def test_inputs_that_have_nothing_to_do_with_one_another_leave_the_columns_norms():
    assert torch.allclose(costs(W, torch.eye(6), BLOCKS, 0.0), W.square().view(3, 3, 2).sum((0, 2)))


def test_a_channel_that_is_a_copy_costs_next_to_nothing():
    x = X.clone()
    x[2:4] = x[:2]
    found = costs(W, x @ x.T, BLOCKS, dampening=1e-9)
    assert float(found[:2].max()) < 1e-5 < float(found[2])


def test_a_layer_without_inputs_loses_nothing():
    assert costs(W, torch.zeros(6, 6), BLOCKS).tolist() == [0, 0, 0]


def mlp(wide=8):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, wide), nn.Tanh(), nn.Linear(wide, 6), nn.Tanh(), nn.Linear(6, 3)).eval()


DATA = [torch.randn(32, 4, generator=torch.Generator().manual_seed(5)) for _ in range(3)]


def test_copies_go_first_and_the_function_stays():
    """Neurons 0 and 1, 2 and 3 are the same: a quarter goes without a trace, where magnitude would take others."""
    model = mlp()
    with torch.no_grad():
        for a, b in ((0, 1), (2, 3)):
            model[0].weight[b], model[0].bias[b] = model[0].weight[a], model[0].bias[a]
    settings = {"example": DATA[0], "calibration": DATA, "ratio": 0.25, "include": ["0.weight"]}
    done = sc.prune(model, "obspa", options={"dampening": 1e-6}, **settings)
    kept = done.plan.keeps["0.weight:0"].tolist()
    assert len({0, 1} & set(kept)) == len({2, 3} & set(kept)) == 1
    assert torch.allclose(done.model(DATA[1]), model(DATA[1]), atol=1e-3)


def test_the_fit_makes_outputs_better_than_the_cut_alone():
    outputs = {}
    for recovery in ("none", "reconstruct"):
        done = sc.prune(mlp(), "obspa", example=DATA[0], calibration=DATA, ratio=0.4, recovery=recovery)
        outputs[recovery] = done.model(DATA[2])
    dense = mlp()(DATA[2])
    assert (outputs["reconstruct"] - dense).norm() < 0.6 * (outputs["none"] - dense).norm()


def test_it_is_a_criterion_too_and_the_fit_goes_with_any():
    by_name = sc.prune(mlp(), "neurons", criterion="obspa", example=DATA[0], calibration=DATA, ratio=0.4)
    same = sc.prune(mlp(), "obspa", structures=["neurons"], example=DATA[0], calibration=DATA, ratio=0.4)
    assert by_name.plan.diff(same.plan) == [] and torch.equal(by_name.model[2].weight, same.model[2].weight)
    fitted = sc.prune(mlp(), "neurons", recovery="reconstruct", example=DATA[0], calibration=DATA, ratio=0.4)
    plain = sc.prune(mlp(), "neurons", example=DATA[0], ratio=0.4)
    assert fitted.plan.diff(plain.plan) == [] and not torch.equal(fitted.model[2].weight, plain.model[2].weight)


def test_noise_is_made_where_no_data_is_given_and_norms_keep_what_they_know():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)).eval()
    with torch.no_grad():
        model[1].running_mean.uniform_()
    settings = {"example": IMAGES, "ratio": 0.5, "options": {"source": "noise", "count": 20}}
    done = sc.prune(model, "obspa", **settings)
    assert torch.equal(done.model[1].running_mean, model[1].running_mean[done.plan.keeps["0.weight:0"]])
    assert torch.equal(done.model[4].running_var, model[4].running_var)
    assert not torch.equal(done.model[3].weight, model[3].weight[:, done.plan.keeps["0.weight:0"]])


def test_convolutions_residuals_and_depthwise_layers():
    done = sc.prune(Residual().eval(), "obspa", example=IMAGES, flops=0.6, calibration=[IMAGES, -IMAGES])
    assert done.verification.ok and done.plan.after.multiply_adds <= 0.6 * done.plan.before.multiply_adds
    assert done.model.depthwise.groups == done.model.depthwise.in_channels < 12 or done.model.stem.out_channels < 8


def test_heads_and_neurons():
    done = sc.prune(Attention().eval(), "obspa", example=SEQUENCES, params=0.6, calibration=[SEQUENCES], scope="kind")
    assert done.verification.ok and {e.kind for e in done.plan.entries} == {"heads", "neurons"}


def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def test_a_grouped_query_language_model():
    ids = torch.randint(0, 40, (6, 12), generator=torch.Generator().manual_seed(0))
    model = llama()
    done = sc.prune(model, "obspa", structures=["heads", "neurons"], example={"input_ids": ids[:1]}, params=0.8, scope="kind",
                    calibration=[{"input_ids": ids[:3]}, {"input_ids": ids[3:]}])  # fmt: skip
    assert done.verification.ok and done.left == ()
    assert done.plan.after.parameters <= 0.8 * done.plan.before.parameters


def test_padding_has_no_say():
    ids = torch.randint(0, 40, (3, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    settings = {"structures": ["neurons"], "example": {"input_ids": ids, "attention_mask": mask}, "ratio": 0.25}
    other = ids.clone()
    other[:, 6:] = 1
    batches = [{"input_ids": each, "attention_mask": mask} for each in (ids, other)]
    models = [sc.prune(llama(), "obspa", calibration=[batch], **settings) for batch in batches]
    assert models[0].plan.diff(models[1].plan) == []
    weights = [done.model.model.layers[1].mlp.down_proj.weight for done in models]
    assert torch.allclose(*weights, atol=1e-6)


def test_settings_that_cannot_be():
    with pytest.raises(BadInput, match="option inputs='both' of 'obspa': use one of 'pruned', 'dense'"):
        Obspa({"inputs": "both"})
    with pytest.raises(BadInput, match="recovery='reconstruct' works with data"):
        sc.prune(mlp(), "neurons", recovery="reconstruct", example=DATA[0], ratio=0.4)
    with pytest.raises(BadInput, match="recovery='refit' is unknown; use one of none, norms, reconstruct"):
        sc.prune(mlp(), "neurons", recovery="refit", example=DATA[0], ratio=0.4)


@pytest.mark.parametrize("inplace", [False, True])
def test_an_optimizer_goes_on_with_the_smaller_model(inplace):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(DATA[0]).square().mean().backward()
    optimizer.step()
    moments = optimizer.state[model[2].weight]["exp_avg"].clone()
    done = sc.prune(model, "obspa", example=DATA[0], calibration=DATA, ratio=0.4, optimizer=optimizer, inplace=inplace)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(a is b for a, b in zip(held, done.model.parameters(), strict=True))
    rows, columns = done.plan.keeps["2.weight:0"], done.plan.keeps["0.weight:0"]
    assert torch.equal(optimizer.state[done.model[2].weight]["exp_avg"], moments[rows][:, columns])
    before = done.model[2].weight.detach().clone()
    done.model(DATA[0]).square().mean().backward()
    optimizer.step()
    assert not torch.equal(before, done.model[2].weight)


def test_an_optimizer_is_not_for_masks():
    model = mlp()
    with pytest.raises(BadInput, match="optimizer= is cut with tensors that become smaller"):
        sc.prune(model, "magnitude", sparsity=0.5, optimizer=torch.optim.SGD(model.parameters(), 0.1))


@pytest.mark.slow
@pytest.mark.skipif("SECATEURS_DATA" not in os.environ, reason="needs the reference network")
def test_the_reference_network_keeps_its_function_where_magnitude_loses_it():
    from benchmarks.structured.task import EXAMPLE, dense

    assert (Path(os.environ["SECATEURS_DATA"]) / "models").is_dir()
    model, images = dense(), torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted, gaps = model(images), {}
    for method in ("channels", "obspa"):
        done = sc.prune(model, method, example=torch.randn(EXAMPLE), flops=0.7, calibration=[images])
        gaps[method] = float((done.model(images) - wanted).norm() / wanted.norm())
    assert gaps["obspa"] < 0.5 * gaps["channels"]
