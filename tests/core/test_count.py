"""The rounding rule, and integers that add up."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.count import check_sparsity, largest_remainder, removed_count
from secateurs.errors import BadInput


@pytest.mark.parametrize(
    ("n", "sparsity", "removed"),
    [
        (6, 0.5, 3),
        (5, 0.5, 3),  # 2.5 rounds up
        (10, 0.24, 2),
        (10, 0.25, 3),
        (50, 0.29, 15),  # 14.5 as a decimal; in binary 0.29 * 50 is 14.499999999999998
        (200, 0.145, 29),
        (4, 0.0, 0),
        (3, 0.99, 2),  # one stays
        (1, 0.9, 0),
        (0, 0.9, 0),
        (10**12, 0.9, 9 * 10**11),
    ],
)
def test_removed_count(n, sparsity, removed):
    assert removed_count(n, sparsity) == removed


def test_least_entries_stay():
    assert [removed_count(10, 0.9, least) for least in (0, 1, 3, 10, 20)] == [9, 9, 7, 0, 0]
    assert removed_count(2, 0.9, least=0) == 2


@given(st.integers(0, 10**9), st.integers(0, 9999))
def test_the_count_is_within_one_half_of_the_share(n, tenths_of_a_permille):
    share = Fraction(tenths_of_a_permille, 10000)
    k = removed_count(n, tenths_of_a_permille / 10000, least=0)
    assert -Fraction(1, 2) < k - share * n <= Fraction(1, 2)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_the_count_rises_with_the_share(n, a, b):
    low, high = sorted((a, b))
    assert 0 <= removed_count(n, low) <= removed_count(n, high) <= n - 1


@pytest.mark.parametrize("wrong", [1, 1.0, -0.1, 90, math.nan, math.inf, True, "0.5", None])
def test_what_is_no_share_is_quoted(wrong):
    with pytest.raises(BadInput, match="total_sparsity=") as error:
        check_sparsity(wrong, "total_sparsity")
    assert repr(wrong) in str(error.value)
    assert check_sparsity(0) == 0.0


def test_the_largest_remainders_are_rounded_up():
    assert largest_remainder([1.5, 2.7, 0.8], 5, [9, 9, 9]) == [1, 3, 1]
    assert largest_remainder([0.5, 0.5, 0.5, 0.5], 2, [9] * 4) == [1, 1, 0, 0]  # ties to the earlier
    assert largest_remainder([3.0, 3.0], 6, [2, 9]) == [2, 4]  # what one cannot hold goes to the other
    assert largest_remainder([0.1, 0.1, 3.8], 4, [9] * 3, least=[1, 1, 0]) == [1, 1, 2]


def test_an_impossible_total_is_refused():
    with pytest.raises(BadInput, match="a total of 5 cannot be met: the groups hold between 0 and 4"):
        largest_remainder([2.5, 2.5], 5, [2, 2])
    with pytest.raises(BadInput, match="a total of 1 cannot be met: the groups hold between 2 and 18"):
        largest_remainder([0.5, 0.5], 1, [9, 9], least=[1, 1])


@st.composite
def apportionments(draw):
    capacity = draw(st.lists(st.integers(0, 50), min_size=1, max_size=8))
    least = [draw(st.integers(0, c)) for c in capacity]
    shares = [draw(st.floats(0, 60)) for _ in capacity]
    return shares, draw(st.integers(sum(least), sum(capacity))), capacity, least


@given(apportionments())
def test_totals_are_exact_and_bounds_hold(case):
    shares, total, capacity, least = case
    counts = largest_remainder(shares, total, capacity, least)
    assert sum(counts) == total
    assert all(a <= k <= c for a, k, c in zip(least, counts, capacity, strict=True))


@given(st.lists(st.integers(1, 97), min_size=1, max_size=9), st.integers(0, 97))
def test_shares_of_the_total_end_within_one_of_it_and_in_the_order_of_their_remainders(parts, percent):
    shares = [Fraction(p * percent, 97) for p in parts]
    total = math.floor(sum(shares) + Fraction(1, 2))
    counts = largest_remainder([float(s) for s in shares], total, [10**6] * len(shares))
    up = [k - math.floor(s) for k, s in zip(counts, shares, strict=True)]
    assert set(up) <= {0, 1}
    remainders = [s - math.floor(s) for s in shares]
    raised = [r for r, u in zip(remainders, up, strict=True) if u]
    left = [r for r, u in zip(remainders, up, strict=True) if not u]
    assert not raised or not left or min(raised) >= max(left) - Fraction(1, 10**9)
