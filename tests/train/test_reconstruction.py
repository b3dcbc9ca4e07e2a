"""Layers fitted anew after a cut: least squares by brute force, in order, and what is left alone."""

import copy

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput, NotFinite
from secateurs.graph import trace
from secateurs.train.reconstruction import Reconstruction, reconstruct
from secateurs.train.recovery import noise_batches, recover

IMAGES = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EXACT = Reconstruction(dampening=0.0)


def mlp():
    torch.manual_seed(0)
    layers = [nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)]
    return nn.Sequential(*layers).double().eval()


def inputs(count=40, seed=1):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def least_squares(x, targets):
    """``w`` [out, in] with the smallest ``|w x - targets|``, of rows ``x`` [tokens, in]."""
    return torch.linalg.lstsq(x, targets).solution.T


def run(model, keeps, batches, how=EXACT):
    graph = trace(model, batches[0])
    keeps = {name: torch.tensor(kept) for name, kept in keeps.items()}
    return reconstruct(model, graph, keeps, batches, how)


def test_a_consumer_is_the_least_squares_fit_to_the_dense_outputs():
    model, x = mlp(), inputs()
    found = run(model, {"0.weight:0": [0, 2, 3, 5]}, list(x.split(10)))
    hidden = model[:2](x).detach()
    expected = least_squares(hidden[:, [0, 2, 3, 5]], hidden @ model[2].weight.detach().T)
    assert found.fitted == ("2.weight",) and found.left == ()
    assert torch.allclose(found.model[2].weight[:, [0, 2, 3, 5]], expected, atol=1e-10)
    assert torch.equal(found.model[2].weight[:, [1, 4]], torch.zeros(5, 2, dtype=torch.float64))
    assert torch.equal(found.model[4].weight, model[4].weight) and torch.equal(found.model[2].bias, model[2].bias)


@pytest.mark.parametrize("reads", ["pruned", "dense"])
def test_the_next_layer_is_fitted_to_what_it_reads_now_or_read_before(reads):
    model, x = mlp(), inputs()
    how = Reconstruction(dampening=0.0, inputs=reads)
    found = run(model, {"0.weight:0": [0, 1, 2, 3], "2.weight:0": [0, 1, 4]}, [x], how).model
    before = model[:4](x).detach()
    now = found[:4](x).detach()
    assert not torch.allclose(before[:, [0, 1, 4]], now[:, [0, 1, 4]])
    read = (now if reads == "pruned" else before)[:, [0, 1, 4]]
    assert torch.allclose(found[4].weight[:, [0, 1, 4]], least_squares(read, before @ model[4].weight.detach().T), atol=1e-8)


def test_a_convolution_is_fitted_by_its_patches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1, bias=False)).double().eval()
    found = run(model, {"0.weight:0": [0, 1, 3]}, list(IMAGES.split(8)))
    maps = model[:2](IMAGES).detach()
    patches = nn.functional.unfold(maps, 3, padding=1).permute(0, 2, 1).reshape(-1, 36)
    kept = [k for k in range(36) if k // 9 != 2]
    expected = least_squares(patches[:, kept], patches @ model[2].weight.detach().flatten(1).T)
    assert torch.allclose(found.model[2].weight.detach().flatten(1)[:, kept], expected, atol=1e-4)


def test_a_copied_channel_hands_over_its_weight():
    """Channels 0 and 1 are the same: without 1, the consumer's column 0 becomes the sum of both."""
    model = mlp()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = model[0].weight[0], model[0].bias[0]
    found = run(model, {"0.weight:0": [0, 2, 3, 4, 5]}, [inputs()]).model
    assert torch.allclose(found[2].weight[:, 0], model[2].weight[:, :2].sum(1), atol=1e-9)
    assert torch.allclose(found(inputs(seed=5)), model(inputs(seed=5)), atol=1e-8)


def test_dampening_draws_towards_the_old_weights():
    model = mlp()
    found = run(model, {"0.weight:0": [0, 2, 3, 5]}, [inputs()], Reconstruction(dampening=1e9)).model
    assert torch.allclose(found[2].weight[:, [0, 2, 3, 5]], model[2].weight[:, [0, 2, 3, 5]], atol=1e-6)


def test_removed_rows_stay_zero_and_the_model_is_left_alone():
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    found = run(model, {"0.weight:0": [0, 1, 2, 3], "2.weight:0": [0, 1, 4]}, [inputs()]).model
    assert torch.count_nonzero(found[2].weight[[2, 3]]) == 0 and torch.count_nonzero(found[2].bias[[2, 3]]) == 0
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_all_layers_behind_the_cut_can_be_fitted():
    model, x = mlp(), inputs()
    how = Reconstruction(dampening=0.0, layers="all")
    found = run(model, {"0.weight:0": [0, 1, 2, 3]}, [x], how)
    assert found.fitted == ("2.weight", "4.weight")
    assert torch.equal(found.model[0].weight[:4], model[0].weight[:4])
    now, before = found.model[:4](x).detach(), model[:4](x).detach()
    assert torch.allclose(found.model[4].weight, least_squares(now, before @ model[4].weight.detach().T), atol=1e-8)


def with_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)).eval()


def test_batch_norms_are_measured_on_the_way():
    model, batches = with_norm(), [x.float() for x in IMAGES.split(8)]
    found = run(model, {"0.weight:0": [0, 1, 3]}, batches, Reconstruction()).model
    maps = [found[:4](x).detach() for x in batches]
    assert torch.allclose(found[4].running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0), atol=1e-5)
    assert torch.allclose(found[4].running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0), rtol=1e-4)
    assert found[1].running_mean[2] == found[1].running_var[2] == 0
    assert int(found[4].num_batches_tracked) == 2
    kept = run(model, {"0.weight:0": [0, 1, 3]}, batches, Reconstruction(norms=False)).model
    assert torch.equal(kept[4].running_var, model[4].running_var)


def test_norms_alone():
    model, batches = with_norm(), [x.float() for x in IMAGES.split(8)]
    graph, keeps = trace(model, batches[0]), {"0.weight:0": torch.tensor([0, 1, 3])}
    found = recover(model, graph, keeps, batches, None)
    assert torch.equal(found.model[3].weight[:, [0, 1, 3]], model[3].weight[:, [0, 1, 3]]) and found.fitted == ()
    assert not torch.equal(found.model[4].running_mean, model[4].running_mean)
    with pytest.raises(BadInput, match="recovery='norms' takes the running statistics of batch norms anew"):
        recover(mlp(), trace(mlp(), inputs()), {"0.weight:0": torch.tensor([0, 1])}, [inputs()], None)


class Awkward(nn.Module):
    """Consumers that cannot be fitted: one that runs twice, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice = nn.Linear(3, 4), nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(self.twice(self.twice(self.first(x))))[0]


def test_what_cannot_be_fitted_is_left_with_a_reason():
    model, x = Awkward().double().eval(), inputs(12).view(2, 6, 3)
    groups = {g.name: g for g in trace(model, x).prunable()}
    name = next(n for n, g in groups.items() if {s.tensor for s in g.slices} >= {"twice.weight"})
    found = run(model, {name: [0, 1, 3]}, [x])
    assert found.fitted == ()
    reasons = {left.name: left.reason for left in found.left}
    assert reasons["twice.weight"] == "its layer runs 2 times in one forward"
    assert "recurrent" in reasons["lstm.weight_ih_l0"]


def test_inputs_that_are_not_finite_stop_it():
    model, x = mlp(), inputs()
    graph = trace(model, x)
    with pytest.raises(NotFinite, match=r"2\.weight"):
        reconstruct(model, graph, {"0.weight:0": torch.tensor([0, 1])}, [x * torch.nan], EXACT)


def test_norms_are_those_of_random_inputs_while_layers_are_fitted_and_then_as_they_were():
    """With the statistics of data, whose mean is 50, no unit would answer to such inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
    model[1].running_mean.fill_(50)
    x = inputs()
    found = run(model, {"0.weight:0": [0, 2, 3, 5]}, [x], Reconstruction(dampening=0.0, norms=False))
    with torch.no_grad():
        between = model[0](x)
        hidden = ((between - between.mean(0)) / (between.var(0) + 1e-5).sqrt()).relu()
    expected = least_squares(hidden[:, [0, 2, 3, 5]], hidden @ model[3].weight.detach().T)
    assert torch.allclose(found.model[3].weight[:, [0, 2, 3, 5]], expected, atol=1e-8)
    assert torch.equal(found.model[1].running_mean[[0, 2, 3, 5]], torch.full((4,), 50.0, dtype=torch.float64))
    assert torch.equal(model[1].running_var, torch.ones(6, dtype=torch.float64)), "the model itself is left as it was"


def test_noise_is_like_the_example_and_follows_the_seed():
    made = noise_batches(torch.zeros(1, 3, 4, 4), 70, 3)
    assert [tuple(x.shape) for x in made] == [(64, 3, 4, 4), (6, 3, 4, 4)] and made[0].dtype == torch.float32
    assert torch.equal(made[1], noise_batches(torch.zeros(1, 3, 4, 4), 70, 3)[1])
    assert abs(float(made[0].std()) - 1) < 0.1


def test_the_smaller_model_gives_what_the_fitted_masked_one_does():
    x = inputs().float()
    done = sc.prune(mlp().float(), "obspa", example=x, ratio=0.4, calibration=[x])
    assert done.verification.ok and done.model[0].out_features < 6
    plain = sc.prune(mlp().float(), done.plan, example=x)
    error = {name: float((m(x) - mlp().float()(x)).detach().norm()) for name, m in (("fit", done.model), ("cut", plain.model))}
    assert error["fit"] < 0.7 * error["cut"]
