"""The generated parts of the pages of methods, on rows one can check by eye."""

from __future__ import annotations

import pytest

from benchmarks.methods import page, paired, tables
from secateurs.registry import METHODS


def test_means_and_errors() -> None:
    assert paired.mean_and_error([]) == ""
    assert paired.mean_and_error([2.0]) == "2.00"
    assert paired.mean_and_error([1.0, 3.0], 1) == "2.0 ± 1.0"  # the deviation is the root of 2, divided by the root of 2
    assert paired.mean_and_error([0.5, 0.5], sign=True) == "+0.50 ± 0.00"


def test_differences_are_of_the_seeds_that_both_have() -> None:
    rows = [{"arm": "a", "seed": seed, "value": value} for seed, value in enumerate([1.0, 2.0, 9.0])]
    rows += [{"arm": "b", "seed": seed, "value": value} for seed, value in enumerate([1.5, 2.5])]
    found = paired.by_arm(rows, "a", lambda row: row["value"])
    assert found["a"][1] == ""
    assert found["b"] == ("2.00 ± 0.50", "+0.50 ± 0.00")


def test_what_stands_between_the_marks_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.SECTIONS, "one", lambda: "a table\n")
    text = "before\n<!-- results: one -->\nold\n<!-- end -->\nafter\n"
    assert page.filled(text) == "before\n<!-- results: one -->\na table\n<!-- end -->\nafter\n"
    assert page.filled(page.filled(text)) == page.filled(text)


def test_every_method_is_in_the_list_and_every_mark_has_a_section() -> None:
    listed = [line[0].strip("[`]").partition("`")[0] for line in page.axes().lines]
    assert listed == list(METHODS)
    for path in page.PAGES.glob("*.md"):
        for name in page.BLOCK.findall(path.read_text(encoding="utf-8")):
            assert page.section(name[1])
