"""Sums of single samples' gradients, taken by hooks."""

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.statistics import GradientSums, gradient_sums, mean_gradients, single_samples


def squared_error(model, batch):
    inputs, targets = batch
    return (model(inputs) - targets).square().sum()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 1)).double()


def data(n=6):
    return [(torch.randn(1, 3).double(), torch.randn(1, 1).double()) for _ in range(n)]


def sums(model, samples, **options):
    weights = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    return gradient_sums(model, weights, samples, squared_error, dtype=torch.float64, **options)


def test_the_sums_by_eye():
    """d (w x - y)^2 / dw = 2 (w x - y) x with w = 1: 2 (1 - 3) 1 = -4 and 2 (2 - 1) 2 = 4."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(1.0)
    samples = [(torch.tensor([[x]]).double(), torch.tensor([[y]]).double()) for x, y in ((1.0, 3.0), (2.0, 1.0))]
    (found,) = gradient_sums(model, {"weight": model.weight}, samples, squared_error).values()
    assert [t.item() for t in (found.absolute, found.squared, found.total)] == [8, 32, 0] and found.samples == 2


def test_they_agree_with_autograd_one_sample_at_a_time():
    model, samples = network().eval(), data()
    weights = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    each = [mean_gradients(model, weights, [sample], squared_error) for sample in samples]
    for name, found in sums(model.train(), samples).items():  # runs in evaluation mode, whatever the model's own
        stacked = torch.stack([one[name] for one in each])
        torch.testing.assert_close(found.absolute, stacked.abs().sum(0))
        torch.testing.assert_close(found.squared, stacked.square().sum(0))
        torch.testing.assert_close(found.total, stacked.sum(0))
        root = found.squared.sqrt()
        assert (root <= found.absolute + 1e-12).all() and (found.absolute <= 6**0.5 * root + 1e-12).all()


def test_magnitudes_do_not_depend_on_order_or_sign_and_scale_as_said():
    model, samples = network(), data()
    plain, turned = sums(model, samples), sums(model, samples[::-1])
    signs = iter([1, -1, 1, -1, -1, 1])
    weights = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    flipped = gradient_sums(model, weights, samples, lambda m, b: next(signs) * squared_error(m, b), dtype=torch.float64)
    scaled = sums(model, samples, scale=100.0, wants=["absolute"])
    for name, one in plain.items():
        torch.testing.assert_close(turned[name].absolute, one.absolute)
        torch.testing.assert_close(flipped[name].absolute, one.absolute)
        torch.testing.assert_close(flipped[name].squared, one.squared)
        torch.testing.assert_close(scaled[name].absolute, 100 * one.absolute)
        assert scaled[name].squared is None


def test_merged_shards_are_the_whole_and_states_come_back():
    model, samples = network(), data()
    whole, first, second = sums(model, samples), sums(model, samples[:2]), sums(model, samples[2:])
    for name, one in whole.items():
        first[name].merge(second[name])
        again = GradientSums.from_state_dict(first[name].state_dict())
        assert again.samples == one.samples == 6
        torch.testing.assert_close(again.absolute, one.absolute)
        torch.testing.assert_close(again.total, one.total)


def test_nothing_of_the_model_changes_even_after_an_error():
    model = network().train()
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = held = torch.full((1, 4), 7.0).double()
    sums(model, data(2))

    def broken(model, batch):
        squared_error(model, batch).backward()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gradient_sums(model, {"w": model[3].weight}, data(1), broken)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert model[3].weight.grad is held and (held == 7).all() and model[3].bias.grad is None
    assert all(module.training for module in model.modules())
    assert not model[3].weight._post_accumulate_grad_hooks


def test_no_gradient_lives_after_its_sum():
    model, most = network(), []

    def loss(model, batch):
        most.append([p.grad for p in model.parameters()])
        return squared_error(model, batch)

    gradient_sums(model, dict(model.named_parameters()), data(3), loss)
    assert most == [[None] * 4] * 3


def test_batches_are_cut_into_samples():
    x, y = torch.arange(6.0).reshape(2, 3), torch.tensor([0, 1])
    assert [one.tolist() for one in single_samples([x])] == [[[0, 1, 2]], [[3, 4, 5]]]
    pairs = list(single_samples([(x, y)]))
    assert [len(pairs), pairs[1][1].tolist(), type(pairs[0])] == [2, [1], tuple]
    assert [one["y"].tolist() for one in single_samples([{"x": x, "y": y, "flag": True}])] == [[0], [1]]
    with pytest.raises(BadInput, match="have \\[1, 2\\] examples"):
        list(single_samples([(x, y[:1])]))
    with pytest.raises(BadInput, match="no tensor"):
        list(single_samples([{"a": 1}]))


def test_bad_input():
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    weights = {"idle.weight": model["idle"].weight, "used.weight": model["used"].weight}
    with pytest.raises(BadInput, match="calibration gave no batch"):
        gradient_sums(model, weights, [], squared_error)
    with pytest.raises(BadInput, match=r"does not depend on 'idle\.weight'"):
        gradient_sums(model, weights, [torch.ones(1, 2)], lambda m, x: m["used"](x).sum())
    with pytest.raises(BadInput, match="'median'"):
        GradientSums(torch.Size([1]), ["median"])
