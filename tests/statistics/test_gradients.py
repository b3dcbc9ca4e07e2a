"""Mean gradients over batches, with nothing of the model changed."""

import copy

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.statistics import hessian_gradients, mean_gradients


def squared_error(model, batch):
    inputs, targets = batch
    return (model(inputs) - targets).square().sum()


def test_the_mean_by_eye():
    """d (w x - y)^2 / dw = 2 (w x - y) x with w = 3: 2 (3 - 1) 1 = 4 and 2 (6 - 1) 2 = 20."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(3.0)
    batches = [(torch.tensor([[x]]).double(), torch.ones(1, 1).double()) for x in (1.0, 2.0)]
    found = mean_gradients(model, {"weight": model.weight}, iter(batches), squared_error)
    assert found["weight"].tolist() == [[12.0]]


def test_nothing_of_the_model_changes():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1)).train()
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.full((1, 3), 7.0)
    before, grad = copy.deepcopy(model.state_dict()), model[3].weight.grad
    weights = {"0.weight": model[0].weight, "3.weight": model[3].weight}
    batches = [(torch.randn(4, 3) + 5, torch.ones(4, 1))] * 2
    found = mean_gradients(model, weights, batches, squared_error)
    assert found["0.weight"].abs().sum() > 0 and not found["0.weight"].requires_grad
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())  # the running statistics too
    assert model[3].weight.grad is grad and (grad == 7).all()
    assert [p.requires_grad for p in weights.values()] == [False, True]
    assert all(m.training for m in model.modules())


def test_random_numbers_follow_the_seed_and_leave_the_generator_alone():
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1)).train()
    weights, batch = {"0.weight": model[0].weight}, (torch.randn(4, 8), torch.ones(4, 1))

    def found(seed):
        return mean_gradients(model, weights, [batch], squared_error, seed)["0.weight"]

    first = found(0)
    torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(found(0), first) and not torch.equal(found(1), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_works_where_gradients_are_switched_off():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        found = mean_gradients(model, {"weight": model.weight}, [(torch.ones(1, 2), torch.zeros(1, 1))], squared_error)
    assert found["weight"].shape == (1, 2)


def test_the_model_is_as_it_was_after_an_error():
    model = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ZeroDivisionError):
        mean_gradients(model, {"weight": model.weight}, [1], lambda model, batch: 1 / 0)
    assert not model.weight.requires_grad


def test_no_batch_and_no_dependence_are_refused():
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    weights = {"used.weight": model["used"].weight, "idle.weight": model["idle"].weight}
    with pytest.raises(BadInput, match="calibration gave no batch"):
        mean_gradients(model, weights, [], squared_error)
    with pytest.raises(BadInput, match=r"the loss does not depend on 'idle\.weight'"):
        mean_gradients(model, weights, [torch.ones(1, 2)], lambda m, x: m["used"](x).sum())


# -- the Hessian times the gradient


def hessian_times_gradient(model, weights, batches, loss):
    """From the whole Hessian of the mean loss."""
    shapes, flat = [w.shape for w in weights.values()], torch.cat([w.detach().flatten() for w in weights.values()])

    def mean(values):
        parts = values.split([s.numel() for s in shapes])
        named = {name: part.view(s) for name, part, s in zip(weights, parts, shapes, strict=True)}
        with torch.nn.utils.stateless._reparametrize_module(model, named):
            return sum(loss(model, batch) for batch in batches) / len(batches)

    g = torch.autograd.functional.jacobian(mean, flat)
    return torch.autograd.functional.hessian(mean, flat) @ g


def test_the_hessian_times_the_gradient_is_that_of_the_whole_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    weights = {"0.weight": model[0].weight, "2.weight": model[2].weight}
    batches = [(torch.randn(5, 3).double(), torch.randn(5, 2).double()) for _ in range(3)]
    found = hessian_gradients(model, weights, batches, squared_error)
    expected = hessian_times_gradient(model, weights, batches, squared_error)
    assert torch.allclose(torch.cat([found[name].flatten() for name in weights]), expected, rtol=1e-10)


def test_the_hessian_times_the_gradient_by_eye():
    """L = (w x - y)^2 with x = 2, y = 0, w = 3: g = 2 w x^2 = 24 and H = 2 x^2 = 8. A linear loss has no curvature."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(3.0)
    batch = (torch.tensor([[2.0]]).double(), torch.zeros(1, 1).double())
    assert hessian_gradients(model, {"weight": model.weight}, [batch], squared_error)["weight"].item() == 192.0
    flat = hessian_gradients(model, {"weight": model.weight}, [batch], lambda m, b: m(b[0]).sum())
    assert flat["weight"].item() == 0.0


def test_nothing_of_the_model_changes_by_its_hessian():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1)).train()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    weights, batch = {"0.weight": model[0].weight}, (torch.randn(4, 3), torch.ones(4, 1))
    first, again = (hessian_gradients(model, weights, [batch], squared_error, seed=1)["0.weight"] for _ in range(2))
    assert torch.equal(first, again) and not first.requires_grad
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert not model[0].weight.requires_grad and model[0].weight.grad is None
    with pytest.raises(BadInput, match="calibration gave no batch"):
        hessian_gradients(model, weights, [], squared_error)
