"""From choices to masks: groups, shares of their own, gradients."""

import pytest
import torch
from torch import nn

from secateurs.core.count import removed_count
from secateurs.core.select import keep_mask
from secateurs.errors import BadInput, NotFinite
from secateurs.models import survey
from secateurs.planning import Choices, decide
from secateurs.recipe import Recipe
from secateurs.registry import find_method


def choices(method="magnitude", **settings):
    known = find_method(method)(settings.get("options"))
    return Choices.of(Recipe(method, **settings).with_defaults(known.defaults), known)


def removed(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def test_six_weights_by_eye():
    model = nn.Linear(3, 2, bias=False)
    model.weight.data = torch.tensor([[0.1, -5.0, 0.3], [-0.2, 0.0, 4.0]])
    masks = decide(survey(model).weights, choices(), 0.5)
    assert masks["weight"].int().tolist() == [[0, 1, 1], [0, 0, 1]]


def lstm():
    torch.manual_seed(1)
    return nn.LSTM(3, 5, num_layers=2, bidirectional=True)


def test_the_two_matrices_of_a_recurrent_layer_are_ranked_as_one():
    model = lstm()
    model.weight_hh_l0.data *= 10  # so that ranking each by itself would give another mask
    masks = decide(survey(model).weights, choices(), 0.7)
    for tail in ("l0", "l0_reverse", "l1", "l1_reverse"):
        ih, hh = (getattr(model, f"weight_{x}h_{tail}").detach() for x in "ih")
        whole = torch.cat([ih.flatten(), hh.flatten()]).abs()
        assert whole.numel() == 4 * 5 * (ih.shape[1] + 5)  # the (in + h) x 4h matrix
        joint = keep_mask(whole, removed_count(whole.numel(), 0.7))
        assert torch.equal(torch.cat([masks[f"weight_ih_{tail}"].flatten(), masks[f"weight_hh_{tail}"].flatten()]), joint)
    assert [removed(masks)[f"weight_{x}h_l0"] for x in "ih"] == [60, 52]  # 112 of 160: all of the smaller one


def test_a_recurrent_layer_keeps_its_count_with_ties():
    model = lstm()
    for parameter in model.parameters():
        parameter.data.fill_(0.5)
    masks = decide(survey(model).weights, choices(), 0.5)
    assert [removed(masks)[f"weight_{x}h_l0"] for x in "ih"] == [0, 80]  # 60 + 100 ties: the later half goes


def three():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 20))


def test_weights_with_a_share_of_their_own_take_no_part_in_the_allocation():
    model = three()
    model[1].weight.data *= 1e-3  # a global ranking would empty it
    weights = survey(model).weights
    alone = decide([weights[0], weights[2]], choices("global-magnitude"), 0.6)
    masks = decide(weights, choices("global-magnitude"), 0.6, {"1.weight": 0.25})
    assert removed(masks)["1.weight"] == 25
    assert all(torch.equal(masks[name], alone[name]) for name in alone)
    assert sum(removed(alone).values()) == 180
    dense = decide(weights, choices("global-magnitude"), 0.6, {"1.weight": 0.0})
    assert removed(dense)["1.weight"] == 0


def test_what_a_criterion_needs_must_be_there():
    weights = survey(nn.Linear(2, 2)).weights
    with pytest.raises(BadInput, match="criterion='gradient' needs gradients"):
        decide(weights, choices(criterion="gradient"), 0.5)
    gradient = torch.tensor([[1.0, -4.0], [3.0, -2.0]])
    masks = decide(weights, choices(criterion="gradient"), 0.5, supply=lambda weight: {"gradient": gradient})
    assert masks["weight"].int().tolist() == [[0, 1], [1, 0]]


def test_random_masks_depend_on_seed_and_name_only():
    """Not on the values, nor on which layers there are beside, nor on their order: and layers of one shape differ."""
    model = three()
    weights = survey(model).weights
    recipe = {"criterion": "random", "allocation": "uniform"}
    masks = decide(weights, choices("random", **recipe), 0.5)
    assert not torch.equal(masks["0.weight"], masks["1.weight"])
    assert removed(masks) == {"0.weight": 50, "1.weight": 50, "2.weight": 100}
    for parameter in model.parameters():
        parameter.data = parameter.data.flip(0)
    again = decide(weights[::-1], choices("random", **recipe), 0.5)
    assert all(torch.equal(again[name], masks[name]) for name in masks)
    assert torch.equal(decide(weights[1:2], choices("random", **recipe), 0.5)["1.weight"], masks["1.weight"])
    other = decide(weights, choices("random", seed=1, **recipe), 0.5)
    assert not torch.equal(other["0.weight"], masks["0.weight"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(bad):
    model = three()
    model[2].weight.data[3, 3] = bad
    for method in ("magnitude", "global-magnitude", "random"):
        with pytest.raises(NotFinite, match=r"'2\.weight' has 1 non-finite of 200 entries"):
            decide(survey(model).weights, choices(method), 0.5)


def test_a_gradient_that_is_no_number_is_named():
    weights = survey(nn.Linear(2, 2)).weights
    weights[0].parameter.data[0, 1] = 0.0
    gradient = torch.tensor([[1.0, float("inf")], [3.0, -2.0]])
    for criterion in ("gradient", "taylor"):
        with pytest.raises(NotFinite, match="'weight' has 1 non-finite"):
            decide(weights, choices(criterion=criterion), 0.5, supply=lambda weight: {"gradient": gradient})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("allocation", ["uniform", "per-row", "global", "global-floor", "er", "erk", "lamp"])
def test_counts_are_exact_in_every_dtype_under_every_allocation(dtype, allocation):
    model = three().to(dtype)  # 16-bit floats have many ties
    masks = decide(survey(model).weights, choices(allocation=allocation), 0.6)
    assert sum(removed(masks).values()) == 240
    if allocation in ("uniform", "per-row"):
        assert list(removed(masks).values()) == [60, 60, 120]
    if allocation == "per-row":
        assert all(((~mask).sum(1) == 6).all() for mask in masks.values())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"structure": "2:4", "allocation": "global"}, "structure='2:4' fixes the share in every layer; allocation='global'"),
        ({"structure": "block:2x2", "allocation": "per-row"}, "allocation='per-row' ranks single weights inside rows"),
        ({"structure": "3x3"}, "structure='3x3' is unknown"),
        ({"criterion": "size"}, "criterion='size' is unknown"),
        ({"allocation": "unifrom"}, "allocation='unifrom' is unknown.*did you mean 'uniform'"),
        ({"allocation": "global-floor", "allocation_options": {"flor": 1}}, "has no option 'flor'; its options are floor"),
    ],
)
def test_choices_that_do_not_go_together(settings, says):
    with pytest.raises(BadInput, match=says):
        choices(**settings)


def test_a_structure_that_does_not_fit_is_refused_before_anything_is_ranked():
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(6, 4))
    with pytest.raises(BadInput, match=r"'2:4' does not fit '1\.weight' of shape \(4, 6\)"):
        decide(survey(model).weights, choices(structure="2:4"), 0.5)
