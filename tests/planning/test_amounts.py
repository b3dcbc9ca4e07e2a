"""From a recipe's words to a share, to shares of single layers, and to steps."""

import pytest
import torch
from torch import nn

from secateurs.core.schedules import Schedule
from secateurs.errors import BadInput
from secateurs.planning import Choices, choose_weights, make_schedule, own_shares, target_sparsity
from secateurs.recipe import Recipe
from secateurs.registry import find_method


def model():
    """100 + 200 selected weights of 330 parameters."""
    return nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 20))


def target(network=None, **settings):
    known = find_method("magnitude")()
    recipe = Recipe("magnitude", **settings).with_defaults(known.defaults)
    return target_sparsity(recipe, Choices.of(recipe, known), choose_weights(network or model(), recipe, trained=False))


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"sparsity": 0.9}, 0.9),
        ({"keep": 0.9}, 0.1),  # not 0.09999999999999998
        ({"keep": 1.0}, 0.0),
        ({"keep": 30}, 0.9),
        ({"keep": 300}, 0.0),
        ({"total_sparsity": 0.5}, 165 / 300),  # 165 of 330
        ({"structure": "2:4", "exclude": ("0", "1"), "include": ("*",)}, None),
        ({"overrides": {"0": 0.5}}, 0.0),
        ({"total_sparsity": 0.5, "overrides": {"0": 0.5}}, 115 / 200),  # 50 go from the first, 115 from the second
        ({"keep": 100, "overrides": {"0": 0.5}}, 150 / 200),
        ({"sparsity": 0.9, "overrides": {"0": 0.5}}, 0.9),
    ],
)
def test_amounts(settings, share):
    if share is None:
        with pytest.raises(BadInput, match="nothing to prune"):
            target(**settings)
    else:
        assert target(**settings) == share


def test_a_structure_brings_its_own_share():
    network = nn.Linear(8, 2)
    assert target(network, structure="2:4") == target(network, structure="2:4", sparsity=0.5) == 0.5
    assert target(network, structure="1:4") == 0.75
    for settings in ({"sparsity": 0.9}, {"keep": 0.5}, {"total_sparsity": 0.5}):
        with pytest.raises(BadInput, match=r"structure='2:4' removes 0\.5 of every layer") as error:
            target(network, structure="2:4", **settings)
        assert next(iter(settings)) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "how much"),
        ({"keep": 0}, "keep=0: give a share above 0.0 and up to 1.0, or a number of the 300 selected weights"),
        ({"keep": 0.0}, "keep=0.0"),
        ({"keep": 1.5}, "keep=1.5"),
        ({"keep": 301}, "keep=301"),
        ({"keep": -3}, "keep=-3"),
        (
            {"total_sparsity": 0.95},
            "total_sparsity=0.95 is out of reach: it removes 314 of all 330 parameters, but 300 of them are selected",
        ),
        ({"total_sparsity": 0.5, "exclude": ("1",)}, "between 0 and 99 can go"),
        ({"total_sparsity": 0.1, "overrides": {"1": 0.9}}, "between 180 and 279 can go"),
        ({"keep": 1}, "keep=1 is out of reach.*between 0 and 298 can go"),
        (
            {"sparsity": 0.5, "allocation": "global-floor", "allocation_options": {"floor": 90}},
            "the floors keep 180 in 2 layers",
        ),
        ({"sparsity": 0.5, "overrides": {"conv*": 0.1}}, r"overrides: 'conv\*' matches none"),
        ({"overrides": {"0.wieght": 0.1}}, r"'0.wieght' matches none of the selected weights; did you mean '0.weight'"),
        (
            {"sparsity": 0.5, "allocation": "explicit", "overrides": {"0": 0.1}},
            "needs a share for every weight, but '1.weight' has none",
        ),
    ],
)
def test_amounts_that_cannot_be(settings, says):
    with pytest.raises(BadInput, match=says):
        target(**settings)


def test_one_may_be_left_of_all_under_a_global_ranking():
    assert target(keep=1, allocation="global") == 299 / 300


def test_of_several_patterns_the_last_counts():
    recipe = Recipe("magnitude", overrides={"*": 0.5, "1": 0.25, "*.weight": 0.1, "0.weight": 0.0})
    weights = choose_weights(model(), recipe, trained=False).weights
    assert own_shares(recipe, weights) == {"0.weight": 0.0, "1.weight": 0.1}


def test_a_tied_weight_goes_by_each_of_its_names():
    network = nn.ModuleDict({"words": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    network["head"].weight = network["words"].weight
    weights = choose_weights(network, Recipe(), trained=True).weights
    for pattern in ("words", "words.weight", "head.weight", "head"):
        assert own_shares(Recipe(overrides={pattern: 0.5}), weights) == {"words.weight": 0.5}


def test_frozen_weights_are_left_alone_while_training_and_pruned_otherwise():
    network = model()
    network[0].weight.requires_grad_(False)
    assert choose_weights(network, Recipe(), trained=False).names == ("0.weight", "1.weight")
    trained = choose_weights(network, Recipe(), trained=True)
    assert trained.names == ("1.weight",)
    assert [left.reason for left in trained.left if left.name == "0.weight"] == ["frozen (requires_grad=False)"]
    network.requires_grad_(False)
    with pytest.raises(BadInput, match=r"all 2 selected weights are frozen.*'0\.weight'"):
        choose_weights(network, Recipe(), trained=True)


def test_weights_that_hold_no_values_are_refused():
    with torch.device("meta"):
        network = model()
    with pytest.raises(BadInput, match=r"'0\.weight' is on the meta device"):
        choose_weights(network, Recipe(), trained=False)


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({"begin": 0.1, "end": 0.75, "every": 100, "total_steps": 1000}, Schedule(0.9, 100, 750, 100)),
        ({"begin": 10, "end": 20}, Schedule(0.9, 10, 20, 1)),
        ({"total_steps": 50, "schedule": "linear"}, Schedule(0.9, 0, 50, 1, "linear")),
        ({"schedule": "one-shot"}, Schedule(0.9, 0, 0, 1, "one-shot")),
        ({"schedule": "one-shot", "begin": 5}, Schedule(0.9, 5, 5, 1, "one-shot")),
        ({"end": 8, "initial_sparsity": 0.5}, Schedule(0.9, 0, 8, 1, "cubic", 0.5)),
    ],
)
def test_schedules(settings, schedule):
    assert make_schedule(Recipe("gmp", sparsity=0.9, **settings), 0.9) == schedule


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "schedule='cubic' needs an end"),
        ({"begin": 0.5, "end": 8}, "begin=0.5 is a share of training, so total_steps is needed"),
        ({"begin": 0.8, "end": 700, "total_steps": 1000}, r"begin=0.8 \(step 800\) is after end=700 \(step 700\)"),
        ({"end": 2000, "total_steps": 1000}, "end=2000 is behind the last of 1000 training steps"),
        ({"end": 8, "schedule": "qubic"}, "schedule='qubic' is unknown"),
        ({"end": 8, "initial_sparsity": 0.95}, "initial_sparsity=0.95 is above the final 0.9"),
    ],
)
def test_schedules_that_cannot_be(settings, says):
    with pytest.raises(BadInput, match=says):
        make_schedule(Recipe("gmp", sparsity=0.9, **settings), 0.9)
