"""Random pruning before training: whose counts, where, and what stays."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.count import removed_count
from secateurs.errors import BadInput
from secateurs.statistics import per_class
from secateurs.train.losses import tempered
from tests.papers.networks import batches, tiny


def removed(pruned):
    return {entry.name: entry.removed for entry in pruned.plan.entries}


def convolutions():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))  # fmt: skip


def images(count):
    torch.manual_seed(4)
    return torch.randn(count, 3, 8, 8), torch.arange(count) % 4


@pytest.mark.parametrize(("allocation", "judge"), [("snip", "taylor"), ("grasp", "grasp")])
def test_ratios_of_another_criterion_with_places_of_chance(allocation, judge):
    """The counts are those of a global ranking by it, which a floor of one keeps alive; the places are the seed's."""
    batch = [images(16)]
    drawn = sc.prune(convolutions(), "random", sparsity=0.8, allocation=allocation, calibration=batch)
    ranked = sc.prune(convolutions(), "global-magnitude", criterion=judge, sparsity=0.8, allocation="global-floor",
                      allocation_options={"floor": 1}, calibration=batch)  # fmt: skip
    assert removed(drawn) == removed(ranked) and sum(removed(drawn).values()) == removed_count(216 + 1152 + 64, 0.8)
    assert len({round(entry.removed / entry.size, 2) for entry in drawn.plan.entries}) > 1
    assert any(not torch.equal(drawn.plan.masks[name], ranked.plan.masks[name]) for name in drawn.plan.masks)
    again = sc.prune(convolutions(), "random", sparsity=0.8, allocation=allocation, calibration=batch)
    other = sc.prune(convolutions(), "random", sparsity=0.8, allocation=allocation, calibration=batch, seed=1)
    assert drawn.plan.diff(again.plan) == [] and removed(other) == removed(drawn) and drawn.plan.diff(other.plan) != []


@pytest.mark.parametrize("allocation", ["snip", "grasp"])
def test_ratios_of_another_criterion_need_batches(allocation):
    with pytest.raises(BadInput, match=r"pass calibration=|give calibration batches"):
        sc.prune(tiny(), "random", sparsity=0.8, allocation=allocation)


def test_a_model_is_as_it_was_after_its_ratios_were_taken():
    model = convolutions()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sc.prune(model, "random", sparsity=0.8, allocation="grasp", calibration=[images(16)])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_uniform_plus_and_erk_plus_on_a_network():
    """Of 216 + 1152 + 64 weights 30 % stay: 216 of the dense first convolution, and of the rest 213.6 of 1216."""
    plain = removed(sc.prune(convolutions(), "random", sparsity=0.7, allocation="uniform-plus"))
    assert plain == {"0.weight": 0, "3.weight": 949, "7.weight": 53}  # 949.64 and 52.76 of 1002
    plus = removed(sc.prune(convolutions(), "random", sparsity=0.7, allocation="erk-plus"))
    assert plus["7.weight"] == 0 and sum(plus.values()) == 1002


def test_the_mask_is_constant_over_training():
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    pruner = sc.Pruner(model, "random", sparsity=0.8)
    pruner.attach(optimizer)
    first = {name: mask.clone() for name, mask in pruner.masks.items()}
    for inputs, labels in batches(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        assert all((dict(model.named_parameters())[name][~mask] == 0).all() for name, mask in first.items())
    assert all(torch.equal(mask, first[name]) for name, mask in pruner.masks.items())
    assert [row["step"] for row in pruner.history] == [0]


def test_rescaling_keeps_the_variance_of_the_outputs():
    torch.manual_seed(0)
    model = nn.Linear(4000, 200, bias=False)
    inputs = torch.randn(50, 4000)
    dense = model(inputs).detach().var()
    plain = sc.prune(model, "random", sparsity=0.9, allocation="uniform").model
    rescaled = sc.prune(model, "random", sparsity=0.9, allocation="uniform", options={"rescale": True}).model
    assert float(plain(inputs).detach().var() / dense) == pytest.approx(0.1, rel=0.1)
    assert float(rescaled(inputs).detach().var() / dense) == pytest.approx(1.0, rel=0.1)
    assert torch.allclose(rescaled.weight, plain.weight / 0.1**0.5)


def test_as_many_samples_of_every_class_in_the_order_they_came():
    inputs, labels = torch.arange(10.0), torch.tensor([0, 1, 0, 0, 1, 1, 2, 2, 0, 2])
    x, y = per_class([(inputs[:4], labels[:4]), (inputs[4:], labels[4:])], 2)
    assert x.tolist() == [0, 1, 2, 4, 6, 7] and y.tolist() == [0, 1, 0, 1, 2, 2]
    with pytest.raises(BadInput, match="class 1 has 3 samples, and 4 of every class are wanted"):
        per_class([(inputs, labels)], 4)
    with pytest.raises(BadInput, match="samples=0"):
        per_class([(inputs, labels)], 0)
    with pytest.raises(BadInput, match="no batch"):
        per_class([], 2)


def test_a_temperature_divides_the_logits():
    model = nn.Linear(3, 3, bias=False)
    model.weight.data = torch.eye(3)
    batch = torch.tensor([[400.0, 0.0, 0.0]]), torch.tensor([0])
    assert tempered(200)(model, batch).item() == pytest.approx(-torch.log_softmax(torch.tensor([2.0, 0, 0]), 0)[0].item())
    with pytest.raises(BadInput, match="temperature=0"):
        tempered(0)
