"""Blocks that leave a list: names and numbers move up."""

from __future__ import annotations

import pytest
from torch import nn

from secateurs.errors import BadInput
from secateurs.formats.depth import keep_blocks, new_name
from tests.planning.stacks import Stack


def test_names_move_up():
    keeps = {"steps": [1, 3]}
    assert new_name("steps.3.linear.weight", keeps) == "steps.1.linear.weight"
    assert new_name("steps.0.linear.weight", keeps) is None
    assert new_name("stem.weight", keeps) == "stem.weight" and new_name("stepson.3", keeps) == "stepson.3"
    assert new_name("3.weight", {"": [1, 3]}) == "1.weight" and new_name("steps", keeps) == "steps"


def test_blocks_and_their_numbers_move_up():
    model = Stack()
    third = model.steps[3]
    keep_blocks(model, "steps", [1, 3])
    assert len(model.steps) == 2 and model.steps[1] is third and third.layer_idx == 1


@pytest.mark.parametrize(("path", "kept"), [("steps", []), ("steps", [5]), ("steps", [1, 1]), ("steps", [-1]), ("stem", [0]),
                                            ("none", [0])])  # fmt: skip
def test_what_is_no_list_or_no_block_is_refused_unchanged(path, kept):
    model = Stack()
    with pytest.raises(BadInput):
        keep_blocks(model, path, kept)
    assert len(model.steps) == 5


def test_blocks_with_names_of_their_own_are_refused():
    model = nn.Sequential()
    model.add_module("one", nn.Linear(2, 2))
    model.add_module("two", nn.Linear(2, 2))
    with pytest.raises(BadInput, match="counted from 0"):
        keep_blocks(model, "", [0])
