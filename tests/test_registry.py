"""Every method by name."""

import pytest

import secateurs as sc
from secateurs.core.method import Method
from secateurs.errors import BadInput
from secateurs.registry import METHODS, find_method


def test_methods_are_listed_in_order_and_are_what_they_are_called():
    listed = sc.methods()
    assert [method.name for method in listed] == list(METHODS)
    assert all(issubclass(method, Method) and find_method(method.name) is method for method in listed)


def test_an_unknown_method_is_quoted_with_near_matches_and_all_names():
    with pytest.raises(BadInput, match=r"method 'gpm' is unknown; there are gmp, magnitude.*did you mean 'gmp'"):
        find_method("gpm")
    with pytest.raises(BadInput, match="method 'zzzzz' is unknown; there are gmp") as error:
        find_method("zzzzz")
    assert "did you mean" not in str(error.value)
