"""Costs as polynomials of kept counts."""

from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.polynomial import Polynomial, product, total

KEPT = {"a": 3, "b": 5}
A, B = Polynomial.of("a"), Polynomial.of("b")


def test_sums_and_products_are_those_of_the_values():
    length = Polynomial.constant(2) + A + Polynomial.of("b", 4)  # two fixed, the a's, four times the b's
    assert length(KEPT) == 25
    assert (length * A)(KEPT) == 75
    assert (A * A * B)(KEPT) == 45
    assert (A * B).terms == (B * A).terms == {("a", "b"): 1}


def test_nothing_adds_up_to_zero_and_multiplies_to_one():
    assert total([])(KEPT) == 0 and product([])(KEPT) == 1
    assert Polynomial.constant(0).terms == {}


def test_what_one_index_saves_depends_on_the_others():
    square = A * A * Polynomial.constant(9)  # a convolution between channels of one group
    assert square.saving("a", {"a": 3}) == 9 * (9 - 4)
    assert (A * B).saving("a", KEPT) == 5 and (A * B).saving("a", {"a": 3, "b": 1}) == 1


def test_the_groups_it_depends_on():
    assert (A * B + Polynomial.constant(7)).groups == {"a", "b"}


polynomials = st.dictionaries(st.sampled_from([(), ("a",), ("b",), ("a", "b"), ("a", "a")]), st.integers(-9, 9)).map(Polynomial)


@given(polynomials, polynomials, st.integers(0, 9), st.integers(0, 9))
def test_arithmetic_is_exact(p, q, a, b):
    kept = {"a": a, "b": b}
    assert (p + q)(kept) == p(kept) + q(kept)
    assert (p * q)(kept) == p(kept) * q(kept)
