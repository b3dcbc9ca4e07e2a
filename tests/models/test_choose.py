"""Narrowing by name, kind and exemption, and what is said when that cannot work."""

import re

import pytest
from torch import nn

from secateurs.errors import BadInput
from secateurs.models import KINDS, matching, select, survey


class MobileBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.depth = nn.Conv2d(4, 4, 3, groups=4)
        self.point = nn.Conv2d(4, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)


@pytest.fixture
def mobile():
    return survey(MobileBlock())


def language_model():
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "lstm": nn.LSTM(3, 3), "mid": nn.Linear(3, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["words"].weight
    return survey(model)


def left(chosen):
    return {item.name: item.reason for item in chosen.left}


def test_nothing_asked_is_everything(mobile):
    assert select(mobile).names == mobile.names == ("stem.weight", "depth.weight", "point.weight", "fc.weight")


@pytest.mark.parametrize("pattern", ["fc.weight", "fc", "fc*", "f?", "*[c].weight"])
def test_a_pattern_names_a_parameter_or_its_module(mobile, pattern):
    assert select(mobile, include=(pattern,)).names == ("fc.weight",)


def test_what_is_not_chosen_is_left_with_the_reason_and_nothing_is_lost(mobile):
    chosen = select(mobile, include=("stem", "point", "fc"), exclude=("stem",), types=("linear",))
    assert chosen.names == ("fc.weight",)
    assert left(chosen)["depth.weight"] == "not named by include=['stem', 'point', 'fc']"
    assert left(chosen)["point.weight"] == "its kind 'conv' is not among types=['linear']"
    assert chosen.total == mobile.total and chosen.order == mobile.order
    assert left(select(mobile, exclude=("stem",)))["stem.weight"] == "named by exclude='stem'"


def test_one_name_is_taken_as_one_name(mobile):
    assert select(mobile, include="fc", types="linear").names == ("fc.weight",)


def test_a_tied_weight_goes_by_each_of_its_names():
    for name in ("words", "head", "head.weight", "hea*"):
        assert select(language_model(), include=(name,)).names == ("words.weight",)


def test_case_matters(mobile):
    with pytest.raises(BadInput, match=r"include='FC\*' matches no parameter and no module"):
        select(mobile, include=("FC*",))


def test_a_typo_gets_near_matches(mobile):
    with pytest.raises(BadInput, match=r"include='stm.weight'.*did you mean 'stem.weight'"):
        select(mobile, include=("stm.weight",))
    with pytest.raises(BadInput, match=r"exclude='pont' matches no parameter and no module; did you mean 'point'"):
        select(mobile, exclude=("pont",))


def test_a_name_like_no_other_gets_what_there_is(mobile):
    with pytest.raises(BadInput, match=r"'zzz' matches no parameter and no module; there is 'depth', .* and \d+ more"):
        select(mobile, include=("zzz",))


def test_a_container_is_told_how_to_write_what_is_in_it():
    nested = survey(nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))}))
    with pytest.raises(BadInput, match=r"'encoder.\*' would match the 2 prunable in it"):
        select(nested, include=("encoder",))
    assert len(select(nested, include=("encoder.*",)).weights) == 2


def test_including_only_what_is_left_alone_quotes_the_reason(mobile):
    with pytest.raises(BadInput, match=r"include='norm' names only what is left alone: 'norm.weight': part of a normalisation"):
        select(mobile, include=("norm",))
    with pytest.raises(BadInput, match=r"include='\*bias' names only .*: a bias; .* \(and 2 more\)"):
        select(mobile, include=("*bias",))


def test_excluding_what_is_left_alone_anyway_does_no_harm(mobile):
    assert select(mobile, exclude=("*norm*",)).names == mobile.names


def test_unknown_kinds_and_rules_are_refused(mobile):
    with pytest.raises(BadInput, match=re.escape(f"types='convolution': choose from {', '.join(KINDS)}")):
        select(mobile, types=("convolution",))
    with pytest.raises(BadInput, match=r"exempt='first_conv': choose from first-conv, .*did you mean 'first-conv'"):
        select(mobile, exempt=("first_conv",))


def test_an_empty_selection_lists_what_there_was(mobile):
    with pytest.raises(
        BadInput, match=r"nothing to prune.*'norm.weight': part of.*'fc.weight': its kind 'linear' is not among"
    ):
        select(mobile, types=("embedding",))
    with pytest.raises(BadInput, match="nothing to prune: the model has no parameters"):
        select(survey(nn.ReLU()))


@pytest.mark.parametrize(
    "rule, spared",
    [
        ("first-conv", {"stem.weight"}),
        ("depthwise", {"depth.weight"}),
        ("gmp", {"stem.weight", "depth.weight"}),
        ("last-linear", {"fc.weight"}),
        ("embedding", set()),
    ],
)
def test_named_exemptions(mobile, rule, spared):
    chosen = select(mobile, exempt=(rule,))
    assert set(mobile.names) - set(chosen.names) == spared
    assert all(left(chosen)[name] == f"exempt by the rule {rule!r}" for name in spared)


def test_the_first_convolution_is_that_of_the_model_not_of_the_selection(mobile):
    assert select(mobile, exclude=("stem",), exempt=("first-conv",)).names == ("depth.weight", "point.weight", "fc.weight")


def test_the_last_linear_may_be_tied_to_the_embedding():
    assert select(language_model(), exempt=("last-linear",)).names == ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "mid.weight")


def test_attention_output_is_not_the_last_linear():
    found = survey(nn.ModuleDict({"fc": nn.Linear(2, 2), "attention": nn.MultiheadAttention(2, 1)}))
    assert "fc.weight" not in select(found, exempt=("last-linear",)).names


def test_matching_gives_the_weights_in_model_order(mobile):
    assert [w.name for w in matching(mobile, "*t*")] == ["stem.weight", "depth.weight", "point.weight", "fc.weight"]
    with pytest.raises(BadInput, match="overrides='nope'"):
        matching(mobile, "nope", "overrides")
