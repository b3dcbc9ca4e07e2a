"""The survey: every parameter once, shared ones with all their places, the others with the reason."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

from secateurs.errors import BadInput
from secateurs.models import survey


def tied():
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["words"].weight
    return model


def reasons(model):
    return {left.name: left.reason for left in survey(model).left}


def test_a_tied_embedding_is_one_weight_with_two_sites():
    model = tied()
    (weight,) = survey(model).weights
    assert (weight.name, weight.kind, weight.aliases) == ("words.weight", "embedding", ("head.weight",))
    assert [(s.module, s.path, s.attribute, s.name) for s in weight.sites] == [
        (model["words"], "words", "weight", "words.weight"),
        (model["head"], "head", "weight", "head.weight"),
    ]
    assert survey(model).total == 15 + 5


def test_a_module_that_stands_twice_is_one_site_with_two_names():
    shared = nn.Linear(2, 2)
    (weight,) = survey(nn.Sequential(shared, nn.ReLU(), shared)).weights
    assert (weight.name, weight.aliases) == ("0.weight", ("2.weight",))
    assert [s.path for s in weight.sites] == ["0"]


def test_a_place_that_is_no_known_layer_is_a_site_too_and_the_kind_comes_from_the_known_one():
    model = nn.Module()
    model.raw = nn.Parameter(torch.ones(2, 2))
    model.layer = nn.Linear(2, 2)
    model.layer.weight = model.raw
    (weight,) = survey(model).weights
    assert (weight.name, weight.kind, weight.group, weight.aliases) == ("raw", "linear", "raw", ("layer.weight",))
    assert [s.name for s in weight.sites] == ["raw", "layer.weight"]


def test_sharing_between_two_layouts_is_left_alone():
    model = nn.ModuleDict({"down": nn.Conv1d(2, 2, 3), "up": nn.ConvTranspose1d(2, 2, 3)})
    model["up"].weight = model["down"].weight
    assert reasons(model)["down.weight"].startswith("shared by 'down.weight' and 'up.weight', which differ in what is output")
    assert survey(model).weights == ()


def test_the_order_is_that_of_named_parameters():
    model = nn.Sequential(nn.LSTM(2, 2), tied(), nn.MultiheadAttention(2, 1))
    found = survey(model)
    names = [name for name, _ in model.named_parameters()]
    assert list(found.names) == [name for name in names if name in found.names]
    assert found.order == tuple(name for name, _ in model.named_parameters(remove_duplicate=False))


def test_the_root_may_be_the_layer():
    (weight,) = survey(nn.Linear(2, 2)).weights
    assert (weight.name, weight.sites[0].path) == ("weight", "")


def test_frozen_weights_are_listed():
    assert survey(nn.Linear(2, 2).requires_grad_(False)).names == ("weight",)


@pytest.mark.parametrize(
    "change, name, reason",
    [
        (parametrizations.weight_norm, "parametrizations.weight.original1", "parametrised: call torch.nn.utils.parametrize."),
        (parametrizations.spectral_norm, "parametrizations.weight.original", "parametrised: call torch.nn.utils.parametrize."),
        (
            lambda m: prune.l1_unstructured(m, "weight", 2),
            "weight_orig",
            "masked by torch.nn.utils.prune: call torch.nn.utils.",
        ),
        (spectral_norm, "weight_orig", "under spectral norm: call torch.nn.utils.remove_spectral_norm"),
    ],
)
def test_a_computed_weight_is_left_alone_with_the_way_back(change, name, reason):
    layer = nn.Linear(3, 3)
    change(layer)
    assert survey(layer).weights == ()
    assert reasons(layer)[name].startswith(reason)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_norm_is_left_alone():
    assert reasons(nn.utils.weight_norm(nn.Linear(3, 3)))["weight_v"].startswith("under weight norm: call")


def test_one_shared_place_under_a_parametrisation_is_enough_to_leave_it():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    parametrize.register_parametrization(second, "weight", nn.Identity())
    assert second.parametrizations.weight.original is first.weight
    found = survey(nn.Sequential(first, second))
    assert found.weights == ()
    assert {left.name: left.reason for left in found.left}["0.weight"].startswith("parametrised")


def test_complex_empty_and_flattened_weights_are_left_alone():
    flat = nn.Linear(2, 2)
    flat.weight = nn.Parameter(torch.ones(4))
    assert reasons(nn.Linear(2, 2, dtype=torch.complex64))["weight"] == "complex numbers (torch.complex64)"
    with pytest.warns(UserWarning, match="zero-element"):
        assert reasons(nn.Linear(0, 2))["weight"] == "it has no entries"
    assert reasons(flat)["weight"] == "its shape (4,) is not that of a linear weight: sharded or flattened?"


def test_lazy_layers_need_a_batch_first():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    with pytest.raises(BadInput, match=r"'1.weight' has no shape yet \(LazyLinear\): run one batch"):
        survey(model)
    model(torch.ones(1, 2))
    assert survey(model).names == ("0.weight", "1.weight")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_left_alone():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    assert reasons(nn.Sequential(scripted, nn.Linear(2, 2)))["0.0.weight"].startswith("inside a TorchScript module")


@pytest.mark.filterwarnings("ignore")
def test_weights_packed_by_quantisation_are_named_though_they_are_no_parameters():
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 3), nn.LSTM(2, 2)), {nn.Linear, nn.LSTM})
    left = {item.name: item for item in survey(quantised).left}
    assert left["0.weight"].shape == (3, 2) and left["0.weight"].reason.startswith("quantised and packed")
    assert left["1.weight_ih_l0"].size == 0


LAYERS = st.sampled_from(
    [
        lambda: nn.Linear(2, 2),
        lambda: nn.Linear(2, 2, bias=False),
        lambda: nn.Conv2d(2, 2, 1, groups=2),
        lambda: nn.ConvTranspose1d(2, 2, 1),
        lambda: nn.BatchNorm1d(2),
        lambda: nn.LSTM(2, 2, bidirectional=True),
        lambda: nn.GRUCell(2, 2),
        lambda: nn.MultiheadAttention(2, 1),
        lambda: nn.TransformerEncoderLayer(2, 1, 3),
        lambda: parametrizations.weight_norm(nn.Linear(2, 2)),
        lambda: nn.PReLU(2),
        tied,
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=4), st.booleans())
def test_every_parameter_is_found_exactly_once(layers, twice):
    modules = [make() for make in layers]
    model = nn.ModuleList(modules + modules[:1] * twice)
    found = survey(model)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert {**{w.name: w.size for w in found.weights}, **{left.name: left.size for left in found.left}} == sizes
    assert found.total == sum(sizes.values())
    everywhere = dict(model.named_parameters(remove_duplicate=False))
    for weight in found.weights:
        assert all(everywhere[name] is weight.parameter for name in (weight.name, *weight.aliases))
        assert all(getattr(site.module, site.attribute) is weight.parameter for site in weight.sites)
        assert model.get_submodule(weight.sites[0].path) is weight.sites[0].module
