"""The algebra of dimensions: what unification keeps, and where it must give up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.graph.axes import ONE, Axis, Dim, Prod, Sum, add, axis, describe, labels, leaves, multiply, resolve, size
from secateurs.graph.groups import positions
from secateurs.graph.unify import Conflict, cut, freeze, split, unify


def test_a_sum_outside_is_multiplied_out() -> None:
    """``(a + b) x c`` lies in memory as ``a x c`` then ``b x c``; a sum inside does not come apart."""
    a, b, c = Axis(2), Axis(3), Axis(4)
    assert multiply([add([a, b]), c]) == Sum((Prod((a, c)), Prod((b, c))))
    assert describe(multiply([c, add([a, b])])) == "4 x (2 + 3)"


def test_one_is_the_empty_product() -> None:
    assert axis(1) is ONE and size(ONE) == 1 and multiply([ONE, ONE]) == ONE and describe(ONE) == "1"


def test_labels_follow_the_memory_order() -> None:
    a, b = Axis(2), Axis(3)
    assert labels(multiply([a, b]), a).tolist() == [0, 0, 0, 1, 1, 1]
    assert labels(multiply([a, b]), b).tolist() == [0, 1, 2, 0, 1, 2]
    assert labels(add([b, a, b]), b).tolist() == [0, 1, 2, -1, -1, 0, 1, 2]


def test_positions_of_an_index() -> None:
    """Two heads whose halves of two entries turn in pairs."""
    heads, half = Axis(2), Axis(2)
    rows = multiply([heads, add([half, half])])
    assert positions(rows, heads).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert positions(rows, half).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_cut_splits_an_axis_everywhere() -> None:
    a, elsewhere = Axis(5), Axis(5)
    unify(a, elsewhere)
    left, right = cut(a, 2)
    assert resolve(elsewhere) == Sum((left, right)) and (size(left), size(right)) == (2, 3)


def test_a_view_splits_an_axis_everywhere() -> None:
    a, heads, inside = Axis(12), Axis(3), Axis(4)
    unify(a, multiply([heads, inside]))
    assert resolve(a) == Prod((heads, inside))


def test_six_by_two_and_three_by_four_refine_to_three_two_two() -> None:
    a = Axis(12)
    unify(a, multiply([Axis(6), Axis(2)]))
    unify(a, multiply([Axis(3), Axis(4)]))
    assert describe(resolve(a)) == "3 x 2 x 2"
    assert not any(leaf.frozen for leaf in leaves(resolve(a)))


def test_two_by_six_and_three_by_four_freeze() -> None:
    a = Axis(12)
    unify(a, multiply([Axis(2), Axis(6)]))
    unify(a, multiply([Axis(3), Axis(4)]), "view_7")
    frozen = list(leaves(resolve(a)))
    assert [leaf.frozen for leaf in frozen] == ["2 x 6 and 3 x 4 are one dimension, and have no common refinement"] * 2
    assert frozen[0].operator == "view_7"


def test_other_sizes_freeze() -> None:
    a, b = Axis(3), Axis(4)
    unify(a, b, "add")
    assert a.frozen and b.frozen


def test_an_axis_inside_itself_freezes() -> None:
    """Rotated halves of an axis whose halves are one would be its own part."""
    a = Axis(4)
    part = Axis(4)
    unify(a, part)
    unify(add([a, Axis(2)]), add([Axis(2), a]))
    assert size(resolve(a)) == 4


def test_frozen_spreads_with_its_first_reason() -> None:
    a, b, c = Axis(4), Axis(4), Axis(4)
    freeze(a, "a vocabulary", "embedding")
    freeze(a, "something else", "later")
    unify(a, b)
    unify(c, b)
    assert [(leaf.frozen, leaf.operator) for leaf in (a, b, c)] == [("a vocabulary", "embedding")] * 3


def test_a_frozen_factor_leaves_the_others_free() -> None:
    """A batch beside heads: only the batch is frozen."""
    batch, heads = Axis(2, "an input"), Axis(3)
    seen = Axis(6)
    unify(multiply([batch, heads]), seen)
    assert resolve(seen) == Prod((batch, heads)) and heads.frozen is None


def test_a_cut_inside_inner_factors_is_refused() -> None:
    with pytest.raises(Conflict):
        cut(multiply([Axis(3), Axis(4)]), 6)


def test_a_split_that_does_not_divide_is_refused() -> None:
    with pytest.raises(Conflict):
        split(Axis(6), 4)


# Dimensions of 24 as trees: products of sums of axes.
FACTORS = st.sampled_from([(24,), (2, 12), (12, 2), (4, 6), (6, 4), (3, 8), (8, 3), (2, 3, 4), (4, 3, 2), (2, 2, 6)])


@st.composite
def dims(draw: st.DrawFn) -> Dim:
    def leaf(n: int) -> Dim:
        if n > 1 and draw(st.booleans()):
            at = draw(st.integers(1, n - 1))
            return add([axis(at), axis(n - at)])
        return axis(n, draw(st.sampled_from([None, None, None, "an input"])))

    return multiply(leaf(n) for n in draw(FACTORS))


def outcome(dim: Dim) -> tuple[str, list[bool]]:
    """The shape of the tree, and which of its axes are frozen."""
    dim = resolve(dim)
    return describe(dim), [leaf.frozen is not None for leaf in leaves(dim)]


@settings(max_examples=300, deadline=None)
@given(dims(), dims())
def test_unify_keeps_sizes_and_agrees(a: Dim, b: Dim) -> None:
    """Afterwards both sides have 24 positions, and either they are one tree or no differing part is left free."""
    unify(a, b)
    a, b = resolve(a), resolve(b)
    assert size(a) == size(b) == 24
    for leaf in leaves(a):
        if leaf.frozen is None:
            assert torch.equal(labels(a, leaf), labels(b, leaf))


@settings(max_examples=200, deadline=None)
@given(dims(), dims())
def test_unify_is_idempotent(a: Dim, b: Dim) -> None:
    unify(a, b)
    once = outcome(a), outcome(b)
    unify(a, b)
    assert (outcome(a), outcome(b)) == once


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_unify_is_commutative(data: st.DataObject) -> None:
    """Which side comes first changes neither what is refined nor what is frozen among the free axes."""
    seed = data.draw(st.tuples(FACTORS, FACTORS))
    a, b = (multiply(Axis(n) for n in sizes) for sizes in seed)
    c, d = (multiply(Axis(n) for n in sizes) for sizes in seed)
    unify(a, b)
    unify(d, c)
    assert outcome(a) == outcome(c) and outcome(b) == outcome(d)


@settings(max_examples=200, deadline=None)
@given(dims(), st.integers(1, 23))
def test_a_cut_keeps_every_position(dim: Dim, at: int) -> None:
    try:
        left, right = cut(dim, at)
    except Conflict:
        return
    assert (size(left), size(right)) == (at, 24 - at)
    whole = resolve(dim)
    for leaf in set(leaves(whole)):
        if leaf.frozen is None:
            assert labels(whole, leaf).tolist() == labels(resolve(add([left, right])), leaf).tolist()
