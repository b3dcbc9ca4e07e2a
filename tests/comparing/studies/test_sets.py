"""Every way once, or distinct ways drawn evenly, from populations of any size."""

import math
from collections import Counter
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.comparing.studies.sets import Choice, kept_sets, population
from secateurs.errors import BadInput


@pytest.mark.parametrize(("keep", "ways"), [(8, 45), (6, 210), (5, 252)])
def test_numbers_of_ways_of_ten_filters(keep, ways):
    sets = kept_sets([Choice(10, keep)], None, 0)
    assert len(sets) == len(set(sets)) == ways == population([Choice(10, keep)])
    assert sets == [(way,) for way in combinations(range(10), keep)]


def test_shares_of_the_published_table_are_counts_of_45():
    assert round(100 * 2 / 45, 2) == 4.44 and round(100 * 26 / 45, 2) == 57.78
    assert population([Choice(10, 8)]) == 45


def test_several_layers_are_a_product():
    sets = kept_sets([Choice(4, 2), Choice(3, 1)], None, 0)
    assert sets == list(product(combinations(range(4), 2), combinations(range(3), 1)))


LAYERS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=4)


@given(LAYERS, st.integers(0, 60), st.integers(0, 9))
def test_samples_are_distinct_and_of_the_right_size(layers, samples, seed):
    choices = [Choice(rows, min(keep, rows)) for rows, keep in layers]
    sets = kept_sets(choices, samples, seed)
    assert len(sets) == len(set(sets)) == min(samples, population(choices))
    assert sets == kept_sets(choices, samples, seed)
    for kept in sets:
        for choice, rows in zip(choices, kept, strict=True):
            assert len(rows) == choice.keep and list(rows) == sorted(set(rows)) and set(rows) <= set(range(choice.rows))


def test_an_astronomical_population():
    choices = [Choice(512, 256)] * 3
    sets = kept_sets(choices, 40, 1)
    assert population(choices) > 10**450 and len(set(sets)) == 40
    assert kept_sets(choices, 40, 2) != sets
    with pytest.raises(BadInput, match=r"samples='all' is .* sets to retrain, more than 100000"):
        kept_sets(choices, None, 0)


def test_every_way_is_drawn_as_often():
    drawn = Counter(kept[0] for seed in range(2000) for kept in kept_sets([Choice(5, 2)], 3, seed))
    expected = 2000 * 3 / math.comb(5, 2)
    assert len(drawn) == 10
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 27.9  # chi-squared, 9 degrees, p = 0.001
