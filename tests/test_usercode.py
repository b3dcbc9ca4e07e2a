"""Functions of the user's, by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secateurs.errors import BadInput
from secateurs.usercode import find, source_hash


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_function_and_a_method_of_a_module_in_this_folder(here: Path) -> None:
    (here / "usercode_nets.py").write_text("def make(): return 3\nclass Kit:\n    @staticmethod\n    def make(): return 4\n")
    assert find("usercode_nets:make", "task 'a': model")() == 3
    assert find("usercode_nets:Kit.make", "task 'a': model")() == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nets.make", "task 'a': model 'nets.make': write module:function"),
        ("nets.py:make", "write module:function"),
        ("usercode_absent:make", "no module 'usercode_absent' in"),
        ("math:sqrd", "task 'a': model 'math:sqrd': 'math' has no 'sqrd'; did you mean 'sqrt'"),
        ("math:pi", "'pi' is a float; name a function"),
    ],
)
def test_what_each_wrong_name_says(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=re.escape(says)):
        find(text, "task 'a': model")


def test_a_module_that_fails_on_import(here: Path) -> None:
    (here / "usercode_broken.py").write_text("1 / 0\n")
    with pytest.raises(BadInput, match="importing 'usercode_broken' failed: ZeroDivisionError"):
        find("usercode_broken:make", "task 'a': model")


def test_the_hash_changes_with_the_file_and_not_otherwise(here: Path) -> None:
    path = here / "usercode_hashed.py"
    path.write_text("def make(): return 3\n")
    make = find("usercode_hashed:make", "--factory")
    before = source_hash(make)
    assert before == source_hash(make) and re.fullmatch("[0-9a-f]{10}", before)
    path.write_text("def make(): return 4\n")
    assert source_hash(make) != before


def test_what_has_no_file_has_a_hash_of_its_name() -> None:
    assert source_hash(len) == source_hash(len) != source_hash(max)
