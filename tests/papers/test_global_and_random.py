"""Global magnitude and random pruning: what their cards promise, on whole models."""

import torch
from torch import nn

import secateurs as sc
from tests.papers.networks import tiny


def masks(model, method, **settings):
    return sc.prune(model, method, **settings).plan.masks


def removed(found):
    return {name: int((~mask).sum()) for name, mask in found.items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def scaled(factor, *layers):
    model = tiny()
    for index in layers:
        model[index].weight.data *= factor
    return model


def test_scaling_all_layers_leaves_global_masks_and_scaling_one_does_not():
    plain = masks(tiny(), "global-magnitude", sparsity=0.8)
    assert sum(removed(plain).values()) == 320
    assert same(plain, masks(scaled(8.0, 0, 2, 4), "global-magnitude", sparsity=0.8))
    assert removed(masks(scaled(0.125, 2), "global-magnitude", sparsity=0.8))["2.weight"] > removed(plain)["2.weight"]


def test_the_order_of_the_layers_does_not_matter():
    model = tiny()
    turned = nn.ModuleDict({name: model.get_submodule(name) for name in ("4", "2", "0")})
    assert same(masks(model, "global-magnitude", sparsity=0.8), masks(turned, "global-magnitude", sparsity=0.8))


def test_a_floor_keeps_a_thin_layer():
    model = nn.ModuleDict({"wide": nn.Linear(100, 100), "thin": nn.Linear(10, 10)})
    with torch.no_grad():
        model["wide"].weight.uniform_(0.5, 1.5)
        model["thin"].weight.uniform_(0.5e-3, 1.5e-3)
    plain = masks(model, "global-magnitude", sparsity=0.9)
    assert removed(plain) == {"wide.weight": 8990, "thin.weight": 100}
    floor = {"allocation": "global-floor", "allocation_options": {"floor": 20}}
    saved = masks(model, "global-magnitude", sparsity=0.9, **floor)
    assert removed(saved) == {"wide.weight": 9010, "thin.weight": 80}
    assert (saved["wide.weight"] <= plain["wide.weight"]).all()  # the same order, 20 further
    none = masks(model, "global-magnitude", sparsity=0.9, allocation="global-floor", allocation_options={"floor": 0})
    assert same(none, plain)


def test_random_masks_do_not_look_at_the_weights():
    shuffled = tiny()
    for index in (0, 2, 4):
        weight = shuffled[index].weight
        weight.data = weight.data.flatten()[torch.randperm(weight.numel())].view_as(weight)
    assert same(masks(tiny(), "random", sparsity=0.8), masks(shuffled, "random", sparsity=0.8))


def test_random_masks_follow_the_seed_and_differ_between_layers_of_one_shape():
    twins = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    first = masks(twins, "random", sparsity=0.5)
    assert not torch.equal(first["0.weight"], first["1.weight"])
    assert removed(first) == {"0.weight": 50, "1.weight": 50}
    assert not same(first, masks(twins, "random", sparsity=0.5, seed=1))
    assert same(first, masks(twins, "random", sparsity=0.5, seed=0))


def test_random_pruning_spares_thin_layers():
    """ERK densities of (12, 12), (16, 12), (4, 16) go as 24/144 : 28/192 : 20/64; of 400 weights 80 stay, as 24 : 28 : 20."""
    kept = dict.fromkeys(("0.weight", "2.weight", "4.weight"), 0)
    kept |= {name: mask.sum().item() for name, mask in masks(tiny(), "random", sparsity=0.8).items()}
    assert kept == {"0.weight": 27, "2.weight": 31, "4.weight": 22}  # 26.7, 31.1, 22.2
