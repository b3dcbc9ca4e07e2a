"""The base of every method: options, and exact choice of units."""

import pytest
import torch

from secateurs.core.method import Method
from secateurs.errors import BadInput


class Plain(Method):
    name, summary, when, paper = "plain", "nothing", "after training", "none"
    options = {"order": ("all", "layerwise"), "bins": (255, 15)}


def test_the_first_value_is_the_default():
    assert Plain().settings == {"order": "all", "bins": 255}
    assert Plain({"bins": 15}).settings == {"order": "all", "bins": 15}


def test_options_that_cannot_be_are_quoted():
    with pytest.raises(BadInput, match=r"'plain' has no option 'oder'; its options: order, bins; did you mean 'order'"):
        Plain({"oder": "all"})
    with pytest.raises(BadInput, match=r"option order='random' of 'plain': use one of 'all', 'layerwise'"):
        Plain({"order": "random"})
    with pytest.raises(BadInput, match="its options: none"):
        Method.__init__(type("Bare", (Method,), {"name": "bare"})(), {"x": 1})


def test_one_group_is_ranked_as_one_and_several_each():
    one, two = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([[1.0, 2, 0], [9, 8, 7]])
    assert Plain().choose("w", one, 3).tolist() == [[False, False, False, True]]
    assert Plain().choose("w", two, 1).tolist() == [[True, True, False], [True, True, False]]


def test_a_method_without_state_refuses_one():
    assert Plain().state_dict() == {}
    Plain().load_state_dict({})
    with pytest.raises(BadInput, match="'plain' keeps no state, but the checkpoint has smoothed"):
        Plain().load_state_dict({"smoothed": {}})
