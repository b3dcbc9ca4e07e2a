"""Gradients of small batches, taken by hand beside the library's."""

import pytest
import torch
from torch import nn

from secateurs.core.fisher import Estimate
from secateurs.errors import BadInput, NotFinite
from secateurs.statistics.fisher import inverse_fisher, minibatches

DAMPING = 1e-2


def loss(model, batch):
    x, y = batch
    return (model(x) - y).square().mean()


def examples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator).double(), torch.randn(count, 2, generator=generator).double()


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


def parameters(model):
    return {name: p for name, p in model.named_parameters() if p.dim() > 1}


def by_hand(model, x, y, samples, masks=None):
    """F of the six weights: a row per group of ``samples`` examples, the gradient of their mean loss."""
    rows = []
    for part, target in zip(x.split(samples), y.split(samples), strict=True):
        error = 2 * (model(part) - target).detach() / 2  # the mean is over two outputs
        gradient = (error.T @ part) / len(part)
        rows.append((gradient if masks is None else gradient * masks).flatten())
    rows = torch.stack(rows)
    return rows.T @ rows / len(rows) + DAMPING * torch.eye(6, dtype=torch.float64)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("block", [6, 0])
def test_a_mean_over_examples_is_one_gradient(samples, block):
    model, (x, y) = linear(), examples(40)
    batches = [(x[:7], y[:7]), (x[7:30], y[7:30]), (x[30:], y[30:])]  # not where the groups end
    found = inverse_fisher(model, parameters(model), batches, loss, Estimate(40 // samples, samples, block, DAMPING))
    reference = torch.linalg.inv(by_hand(model, x, y, samples))
    torch.testing.assert_close(found.diagonal("weight"), reference.diagonal().view(2, 3))
    vector = torch.linspace(-1, 1, 6).double()
    torch.testing.assert_close(found.inverse.product(vector), reference @ vector)


def test_no_more_is_read_than_is_used():
    model, (x, y) = linear(), examples(12)

    def endless():
        while True:
            yield x, y

    found = inverse_fisher(model, parameters(model), endless(), loss, Estimate(12, 1, 6, DAMPING))
    torch.testing.assert_close(found.diagonal("weight").flatten(), torch.linalg.inv(by_hand(model, x, y, 1)).diagonal())


def test_pruned_weights_do_not_pollute_their_block():
    model, (x, y) = linear(), examples(20)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    with torch.no_grad():
        model.weight[1, 2] = 0  # zero, and not masked
    given = {"weight": torch.tensor([[True, False, True], [True, True, True]])}
    found = inverse_fisher(model, parameters(model), [(x, y)], loss, Estimate(20, 1, 6, DAMPING), masks=given)
    reference = torch.linalg.inv(by_hand(model, x, y, 1, mask))
    torch.testing.assert_close(found.diagonal("weight"), reference.diagonal().view(2, 3))
    assert found.diagonal("weight")[~mask].tolist() == [1 / DAMPING] * 2


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("block", [6, 0])
def test_what_goes_is_zero_and_what_has_gone_stays(exact, block):
    model, (x, y) = linear(), examples(20)
    with torch.no_grad():
        model.weight[0, 1] = 0
    found = inverse_fisher(model, parameters(model), [(x, y)], loss, Estimate(20, 1, block, DAMPING))
    values, mask = {"weight": model.weight.detach()}, torch.tensor([[False, True, True], [True, False, True]])
    new = found.compensated(values, {"weight": mask}, exact=exact)["weight"]
    assert (new == 0).tolist() == [[True, True, False], [False, True, False]]
    unchanged = found.compensated(values, {"weight": mask}, exact=exact, scale=0.0)["weight"]
    assert torch.equal(unchanged, model.weight.detach() * mask)
    twice = found.compensated(values, {"weight": mask}, exact=exact, scale=2.0)["weight"]
    torch.testing.assert_close(twice[mask] - unchanged[mask], 2 * (new - unchanged)[mask])


def test_updates_reach_other_tensors_where_there_is_one_block():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    values = {name: p.detach() for name, p in model.named_parameters()}
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in values.items()}
    masks["0.weight"][0, 0] = False
    changed = {}
    for block in (0, 20):
        found = inverse_fisher(model, dict(model.named_parameters()), [examples(30)], loss, Estimate(30, 1, block, DAMPING))
        new = found.compensated(values, masks)
        changed[block] = [not torch.equal(new[name], value) for name, value in values.items()]
    assert changed == {0: [True, True], 20: [True, False]}


def test_the_model_is_left_alone_and_runs_in_evaluation_mode():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 2)).double()
    model[0].bias.grad, model[0].weight.requires_grad = torch.ones(4).double(), False
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = []
    model[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    state = torch.get_rng_state()
    first, again = (inverse_fisher(model, parameters(model), [examples(9)], loss, Estimate(9, 1, 4)) for _ in range(2))
    assert torch.equal(first.inverse.diagonal, again.inverse.diagonal)
    assert modes == [False] * 18 and model.training and model[2].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].bias.grad, torch.ones(4)) and model[0].weight.grad is None and not model[0].weight.requires_grad
    assert torch.equal(state, torch.get_rng_state())


def test_examples_of_every_kind_of_batch():
    x, ids = torch.arange(10).view(5, 2), torch.arange(5)
    assert [b.tolist() for b in minibatches([ids[:3], ids[3:]], 2)] == [[0, 1], [2, 3]]
    found = list(minibatches([{"x": x[:1], "y": (ids[:1], "kept")}, {"x": x[1:], "y": (ids[1:], "kept")}], 5))
    assert torch.equal(found[0]["x"], x) and torch.equal(found[0]["y"][0], ids) and found[0]["y"][1] == "kept"


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_fewer_examples_than_needed():
    model = linear()
    told = r"gradients=10, each of samples=3, takes 30 examples, .* fewer than 9: .*'gradients': 2\b"
    with pytest.raises(BadInput, match=told):
        inverse_fisher(model, parameters(model), [examples(8)], loss, Estimate(10, 3))
    with pytest.raises(BadInput, match="gradients=10, each of samples=1, takes 10 examples"):
        inverse_fisher(model, parameters(model), [], loss, Estimate(10, 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number(bad):
    model, (x, y) = linear(), examples(8)
    y[5] = bad
    with pytest.raises(NotFinite, match="gradient 5 of 'weight' has entries that are NaN or infinite"):
        inverse_fisher(model, parameters(model), [(x, y)], loss, Estimate(8))


def test_float16_is_refused():
    model = linear().half()
    with pytest.raises(BadInput, match="'weight' is in float16, where small gradients are lost"):
        inverse_fisher(model, parameters(model), [examples(8)], loss, Estimate(8))


def test_bfloat16_gradients_are_kept_in_float32():
    model, (x, y) = linear().bfloat16(), examples(8)
    found = inverse_fisher(model, parameters(model), [(x.bfloat16(), y.bfloat16())], loss, Estimate(8, 1, 0))
    assert found.inverse.diagonal.dtype == torch.float32


def test_a_weight_that_the_loss_does_not_reach():
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "other": nn.Linear(3, 2)}).double()
    with pytest.raises(BadInput, match="the loss does not depend on 'other"):
        inverse_fisher(model, parameters(model), [examples(8)], lambda m, b: loss(m["used"], b), Estimate(8))


def test_examples_of_different_lengths_cannot_be_one_gradient():
    ragged = [torch.ones(1, 3), torch.ones(1, 4)]
    assert [b.shape for b in minibatches(ragged, 1)] == [(1, 3), (1, 4)]
    with pytest.raises(BadInput, match="different shapes cannot be one batch: give samples=1"):
        list(minibatches(ragged, 2))
