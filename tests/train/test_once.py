"""``sc.prune``: one call, exact counts, the input untouched."""

import copy
from collections import UserDict

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput, NotFinite


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))


def batches():
    torch.manual_seed(1)
    return [(torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,))) for _ in range(2)]


def zeros(model):
    return {name: int((p == 0).sum()) for name, p in model.named_parameters() if p.ndim > 1}


def state(model):
    return copy.deepcopy(model.state_dict())


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_six_weights_by_eye():
    model = nn.Linear(3, 2)
    model.weight.data = torch.tensor([[0.1, -5.0, 0.3], [-0.2, 0.0, 4.0]])
    pruned = sc.prune(model, "magnitude", sparsity=0.5)
    assert torch.equal(pruned.model.weight, torch.tensor([[0.0, -5.0, 0.3], [0.0, 0.0, 4.0]]))
    assert torch.equal(pruned.model.bias, model.bias)
    assert pruned.report[-1] == {"name": "total", "shape": None, "size": 6, "kept": 3, "removed": 3, "sparsity": 0.5}
    assert (pruned.plan.removed, pruned.recipe.method, pruned.recipe.criterion) == (3, "magnitude", "magnitude")


def test_the_input_is_untouched_unless_in_place():
    model = network()
    before = state(model)
    pruned = sc.prune(model, "magnitude", sparsity=0.8)
    assert same(before, state(model)) and pruned.model is not model
    assert zeros(pruned.model) == {"0.weight": 173, "4.weight": 2304}  # 216 and 2880, 0.8 of each
    here = sc.prune(model, "magnitude", sparsity=0.8, inplace=True)
    assert here.model is model and same(state(model), state(pruned.model))


def test_a_wrapped_model_comes_back_wrapped():
    model = nn.DataParallel(network())
    pruned = sc.prune(model, "magnitude", sparsity=0.5)
    assert isinstance(pruned.model, nn.DataParallel)
    assert zeros(pruned.model.module) == {"0.weight": 108, "4.weight": 1440}


def test_the_default_is_magnitude_and_a_recipe_may_stand_for_the_name():
    recipe = sc.Recipe("magnitude", sparsity=0.5, exclude=("0",))
    pruned = sc.prune(network(), recipe, sparsity=0.75)
    assert zeros(pruned.model) == {"0.weight": 0, "4.weight": 2160}
    assert pruned.recipe.sparsity == 0.75 and pruned.recipe.exclude == ("0",)
    assert zeros(sc.prune(network(), sparsity=0.75, exclude="0").model) == zeros(pruned.model)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep": 0.25}, [54, 720]),
        ({"keep": 100}, [7, 93]),  # 6.98 and 93.02
        ({"keep": 1548}, [108, 1440]),
        ({"sparsity": 0.5, "overrides": {"0": 0.0}}, [216, 1440]),
        ({"allocation": "explicit", "overrides": {"0": 0.25, "4": 0.75}}, [162, 720]),
        ({"sparsity": 0.9, "include": ("4*",)}, [216, 288]),
        ({"sparsity": 0.9, "types": ("conv",)}, [22, 2880]),
        ({"sparsity": 0.9, "exempt": ("last-linear",)}, [22, 2880]),
    ],
)
def test_amounts_and_selections(settings, kept):
    pruned = sc.prune(network(), "magnitude", **settings)
    assert [n - k for n, k in zip([216, 2880], zeros(pruned.model).values(), strict=True)] == kept


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.77, 0.9])
def test_a_share_of_the_total_is_met_to_one_weight(share, allocation):
    model = network()
    total = sum(p.numel() for p in model.parameters())
    pruned = sc.prune(model, "magnitude", total_sparsity=share, allocation=allocation)
    assert total == 3130 and abs(pruned.plan.removed - share * total) <= 0.5


@pytest.mark.parametrize("amount", [{"total_sparsity": 0.5}, {"keep": 17}], ids=str)
def test_a_promised_total_is_met_where_rounding_every_layer_would_miss_it(amount):
    """Seven layers of five weights: 3 of every one would be 21, but half of 35 is 18."""
    model = nn.Sequential(*(nn.Linear(5, 1, bias=False) for _ in range(7)))
    assert [e.removed for e in sc.prune(model, "magnitude", **amount).plan.entries] == [3, 3, 3, 3, 2, 2, 2]
    assert [e.removed for e in sc.prune(model, "magnitude", sparsity=0.5).plan.entries] == [3] * 7


def test_a_share_of_the_total_out_of_reach_says_how_far_it_goes():
    with pytest.raises(BadInput, match=r"total_sparsity=0\.95 is out of reach: it removes 2974 .* between 0 and 2879 can go"):
        sc.prune(network(), "magnitude", total_sparsity=0.95, exclude=("0",))


def test_structures():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6))
    two_four = sc.prune(model, "magnitude", structure="2:4").model
    assert all(((p != 0).view(-1, 4).sum(1) == 2).all() for n, p in two_four.named_parameters() if n.endswith("weight"))
    rows = sc.prune(model, "magnitude", structure="rows", sparsity=0.5)
    assert [int((p == 0).all(1).sum()) for n, p in rows.model.named_parameters() if n.endswith("weight")] == [4, 3]
    blocks = sc.prune(model, "magnitude", structure="block:2x4", sparsity=0.5)
    assert zeros(blocks.model) == {"0.weight": 32, "1.weight": 24}
    assert {entry.structure for entry in blocks.plan.entries} == {"block:2x4"}


# -- with data


@pytest.mark.parametrize("criterion", ["taylor", "gradient"])
def test_gradients_come_from_the_batches_given(criterion):
    model = network().eval()
    pruned = sc.prune(model, "magnitude", sparsity=0.5, criterion=criterion, calibration=batches())
    model.zero_grad()
    for inputs, labels in batches():
        (nn.functional.cross_entropy(model(inputs), labels) / 2).backward()
    for index in (0, 4):
        weight = model[index].weight
        scores = weight.grad.abs() if criterion == "gradient" else (weight * weight.grad).abs()
        kept = scores.detach()[pruned.plan.masks[f"{index}.weight"]]
        gone = scores.detach()[~pruned.plan.masks[f"{index}.weight"]]
        assert gone.max() <= kept.min() * (1 + 1e-4)  # sums of two batches may round otherwise


def test_taylor_ranks_the_whole_network_and_running_statistics_stay():
    model = network().train()
    before = state(model)
    pruned = sc.prune(model, "taylor", sparsity=0.9, calibration=batches())
    assert pruned.plan.removed == 2786  # of 3096
    assert same(before, state(model))
    assert torch.equal(pruned.model[1].running_mean, before["1.running_mean"])
    assert model.training and pruned.model.training


def test_a_loss_of_ones_own_and_batches_by_keyword():
    class Output(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, inputs, labels):
            return type("Out", (), {"loss": nn.functional.cross_entropy(self.fc(inputs), labels)})

    batch = {"inputs": torch.randn(3, 4), "labels": torch.tensor([0, 1, 1])}
    model = Output()
    given = sc.prune(model, "taylor", sparsity=0.5, calibration=[batch])
    assert given.plan.removed == 4
    assert (
        given.plan.diff(sc.prune(model, "taylor", sparsity=0.5, calibration=[UserDict(batch)]).plan) == []
    )  # transformers' kind
    own = sc.prune(model, "taylor", sparsity=0.5, calibration=[batch], loss=lambda model, b: 2 * model(**b).loss)
    assert given.plan.diff(own.plan) == []


def test_a_method_that_needs_data_says_so():
    with pytest.raises(BadInput, match="needs gradients: pass calibration="):
        sc.prune(network(), "taylor", sparsity=0.5)
    with pytest.raises(BadInput, match="calibration gave no batch"):
        sc.prune(network(), "taylor", sparsity=0.5, calibration=[])


# -- frozen, tied


def test_frozen_weights_are_pruned_too_and_stay_frozen():
    model = network().requires_grad_(False)
    pruned = sc.prune(model, "taylor", sparsity=0.5, calibration=batches())
    assert pruned.plan.removed == 1548
    assert not any(p.requires_grad for p in pruned.model.parameters())


def test_a_tied_weight_is_counted_and_pruned_once():
    model = nn.ModuleDict({"words": nn.Embedding(6, 4), "head": nn.Linear(4, 6, bias=False)})
    model["head"].weight = model["words"].weight
    pruned = sc.prune(model, "magnitude", sparsity=0.25)
    assert pruned.plan.size == 24 and pruned.plan.removed == 6
    assert pruned.model["head"].weight is pruned.model["words"].weight
    assert int((pruned.model["head"].weight == 0).sum()) == 6


# -- nothing changes on failure


def nan(model):
    model[4].weight.data[3, 3] = float("nan")


def meta(model):
    model[4].to("meta")


def sparse(model):
    model[4].weight = nn.Parameter(model[4].weight.data.to_sparse())


def quantised(model):
    model[4].weight = nn.Parameter(torch.quantize_per_tensor(model[4].weight.data, 0.1, 0, torch.qint8), requires_grad=False)


def whole_numbers(model):
    model[4].weight = nn.Parameter(model[4].weight.data.to(torch.int8), requires_grad=False)


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (nan, NotFinite, r"'4\.weight' has 1 non-finite of 2880 entries"),
        (meta, BadInput, r"'4\.weight' is on the meta device"),
        (sparse, BadInput, r"'4\.weight' is stored as torch\.sparse_coo"),
        (quantised, BadInput, r"'4\.weight' is stored as torch\.qint8"),
        (whole_numbers, BadInput, r"'4\.weight' is stored as torch\.int8"),
    ],
)
@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_a_model_that_cannot_be_pruned_is_left_as_it_is(spoil, error, says, inplace):
    model = network()
    spoil(model)
    before = model[0].weight.detach().clone()
    with pytest.raises(error, match=says):
        sc.prune(model, "magnitude", sparsity=0.5, inplace=inplace)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"sparsity": -0.1}, "sparsity=-0.1"),
        ({"sparsity": "half"}, "sparsity='half'"),
        ({}, "how much"),
        ({"sparsity": 0.5, "keep": 0.5}, "sparsity and keep"),
        ({"sparsity": 0.5, "exclude": ("*",)}, "nothing to prune"),
        ({"sparsity": 0.5, "include": ("conv1",)}, "include='conv1' matches no parameter and no module"),
        ({"sparsity": 0.5, "sparcity": 0.5}, "recipe key 'sparcity' is unknown; did you mean 'sparsity'"),
        ({"structure": "2:4"}, r"'2:4' does not fit '0\.weight' of shape \(8, 3, 3, 3\): its input dimension 3"),
        ({"sparsity": 0.9, "allocation": "global-floor", "allocation_options": {"floor": 500}}, "the floors keep"),
        ({"sparsity": 0.5, "options": {"order": "global"}}, "'magnitude' has no option 'order'"),
    ],
)
def test_bad_settings_change_nothing(settings, says):
    model = network()
    before = state(model)
    with pytest.raises(BadInput, match=says):
        sc.prune(model, "magnitude", inplace=True, **settings)
    assert same(before, state(model))


def test_methods_that_train_and_methods_that_do_not_exist():
    with pytest.raises(BadInput, match=r"'gmp' prunes while a model trains: use secateurs\.Pruner\(model, 'gmp'"):
        sc.prune(network(), "gmp", sparsity=0.5)
    with pytest.raises(BadInput, match=r"method 'magnitud' is unknown; .*did you mean 'magnitude'"):
        sc.prune(network(), "magnitud", sparsity=0.5)
