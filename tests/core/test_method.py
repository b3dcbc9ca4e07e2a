"""The base of every method: options, and exact choice of units."""

import pytest
import torch

from secateurs.core.method import Method
from secateurs.core.option import Number
from secateurs.errors import BadInput


class Plain(Method):
    name, summary, when, paper = "plain", "nothing", "after training", "none"
    options = {"order": ("all", "layerwise"), "bins": (255, 15), "share": Number(0.5, 0, 1), "block": Number(8, 1, whole=True)}


def test_the_first_value_is_the_default():
    assert Plain().settings == {"order": "all", "bins": 255, "share": 0.5, "block": 8}
    assert Plain({"bins": 15, "share": 1}).settings == {"order": "all", "bins": 15, "share": 1, "block": 8}


def test_options_that_cannot_be_are_quoted():
    with pytest.raises(BadInput, match=r"'plain' has no option 'oder'; its options: order, bins, .*; did you mean 'order'"):
        Plain({"oder": "all"})
    with pytest.raises(BadInput, match=r"option order='random' of 'plain': use one of 'all', 'layerwise'"):
        Plain({"order": "random"})
    with pytest.raises(BadInput, match="its options: none"):
        Method.__init__(type("Bare", (Method,), {"name": "bare"})(), {"x": 1})


def test_one_group_is_ranked_as_one_and_several_each():
    one, two = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([[1.0, 2, 0], [9, 8, 7]])
    assert Plain().choose("w", one, 3).tolist() == [[False, False, False, True]]
    assert Plain().choose("w", two, 2).tolist() == [[True, True, False], [True, True, False]]
    assert Plain().choose("w", two, 3).tolist() == [[False, True, False], [True, True, False]]  # the first row loses one more


def test_a_method_without_state_refuses_one():
    assert Plain().state_dict() == {}
    Plain().load_state_dict({})
    with pytest.raises(BadInput, match="'plain' keeps no state, but the checkpoint has smoothed"):
        Plain().load_state_dict({"smoothed": {}})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"share": 1.5}, "share=1.5 of 'plain': give a number from 0 to 1"),
        ({"share": True}, "share=True of 'plain': give a number"),
        ({"share": float("nan")}, "share=nan"),
        ({"share": "0.5"}, "share='0.5'"),
        ({"block": 8.0}, "block=8.0 of 'plain': give a whole number, 1 or more"),
        ({"block": 0}, "block=0"),
        ({"bins": True}, "bins=True"),
    ],
)
def test_numbers_out_of_bounds_are_quoted(options, says):
    with pytest.raises(BadInput, match=says):
        Plain(options)


def test_facts_are_plain_data():
    assert Plain.facts()["options"]["share"] == {"default": 0.5, "lawful": "a number from 0 to 1"}
    assert Plain.facts()["options"]["bins"] == [255, 15]
