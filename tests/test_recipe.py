"""A recipe says the same as a Python call, a mapping and a YAML file; what it cannot say is quoted."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secateurs as sc
from secateurs.errors import BadInput

TEXT = """
method: gmp
sparsity: 0.9
structure: 2:4
begin: 0.1
end: 7500
every: 100
total_steps: 10000
include: [conv*, fc.weight]
exempt: gmp
overrides: {fc.weight: 0.5}
allocation_options: {floor: 1e-3}
options:
  order: layerwise
"""


@pytest.fixture
def write(tmp_path):
    def writing(text, name="recipe.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return writing


def test_call_mapping_and_file_are_one_recipe(write):
    call = sc.Recipe(
        "gmp", sparsity=0.9, structure="2:4", begin=0.1, end=7500, every=100, total_steps=10000, include=("conv*", "fc.weight"),
        exempt="gmp", overrides={"fc.weight": 0.5}, allocation_options={"floor": 0.001}, options={"order": "layerwise"},
    )  # fmt: skip
    mapping = {
        "method": "gmp", "sparsity": 0.9, "structure": "2:4", "begin": 0.1, "end": 7500, "every": 100, "total_steps": 10000,
        "include": ["conv*", "fc.weight"], "exempt": ["gmp"], "overrides": {"fc.weight": 0.5},
        "allocation_options": {"floor": 0.001}, "options": {"order": "layerwise"},
    }  # fmt: skip
    assert sc.Recipe.from_yaml(write(TEXT)) == sc.Recipe.from_dict(mapping) == call
    assert call.to_dict() == mapping  # what was not said is not written
    assert sc.Recipe.from_yaml(write(call.to_yaml())) == call
    assert sc.Recipe.from_dict(json.loads(json.dumps(call.to_dict()))) == call


def test_nothing_said_is_nothing_written():
    assert sc.Recipe().to_dict() == {"method": "gmp"}
    assert sc.Recipe().to_yaml() == "method: gmp\n"


def test_numbers_keep_their_kind(write):
    """An integer is a number of weights or steps, a float a share."""
    recipe = sc.Recipe.from_yaml(write("keep: 1\nbegin: 1.0\nend: 1\nseed: 3"))
    assert [(v, type(v)) for v in (recipe.keep, recipe.begin, recipe.end, recipe.seed)] == [
        (1, int),
        (1.0, float),
        (1, int),
        (3, int),
    ]


def test_numbers_of_numpy_are_numbers(write):
    recipe = sc.Recipe(sparsity=np.float64(0.75))
    assert type(recipe.sparsity) is float
    assert sc.Recipe.from_yaml(write(recipe.to_yaml())) == recipe == sc.Recipe(sparsity=0.75)


words = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=12)
shares = st.floats(0, 1, exclude_max=True)
moments = st.one_of(st.integers(0, 10**6), st.floats(0, 1))
tables = st.dictionaries(
    words, st.one_of(words, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()), max_size=3
)
recipes = st.builds(
    sc.Recipe,
    method=words,
    sparsity=st.none() | shares,
    structure=st.none() | st.sampled_from(["2:4", "1:16", "element", "block:4x4"]) | words,
    begin=st.none() | moments,
    end=st.none() | moments,
    every=st.none() | st.integers(1, 10**6),
    initial_sparsity=shares,
    include=st.lists(words, max_size=3),
    exclude=st.lists(
        st.sampled_from(["12:30", "1e5", "yes", "null", "0x1f", "~", "1_000", "2020-01-01", "*", "-"]), max_size=3
    ),
    overrides=st.dictionaries(words, shares, max_size=3),
    seed=st.integers(),
    options=tables,
)


@given(recipe=recipes)
@settings(max_examples=150)
def test_any_recipe_survives_yaml(recipe, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    again = sc.Recipe.from_yaml(path)
    assert again == recipe
    assert again.to_dict() == recipe.to_dict()


def test_defaults_fill_only_what_was_left_open():
    recipe = sc.Recipe("gmp", sparsity=0.5, every=7).with_defaults(
        {"every": 100, "criterion": "magnitude", "allocation": "uniform"}
    )
    assert (recipe.every, recipe.criterion, recipe.allocation) == (7, "magnitude", "uniform")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0: give the share of weights to remove"),
        ({"sparsity": 90}, "sparsity=90"),
        ({"total_sparsity": -0.5}, "total_sparsity=-0.5"),
        ({"initial_sparsity": 2.0}, "initial_sparsity=2.0"),
        ({"sparsity": 0.5, "keep": 0.5}, "sparsity and keep say the same thing twice"),
        ({"keep": "half"}, "keep='half': give the share kept"),
        ({"keep": True}, "keep=True"),
        ({"overrides": {"fc": 1.5}}, r"overrides\['fc'\]=1.5"),
        ({"overrides": ["fc"]}, r"overrides=\['fc'\]: give a table"),
        ({"include": 3}, "include=3: give a name, or a list of names"),
        ({"exclude": ["a", 3]}, r"exclude=\['a', 3\]"),
        ({"every": 0}, "every=0: give a whole number of steps, at least 1"),
        ({"every": 1.5}, "every=1.5"),
        ({"total_steps": True}, "total_steps=True"),
        (
            {"enforcement": "keeep"},
            "enforcement='keeep' is unknown; use one of keep, overwrite, straight-through; did you mean 'keep'",
        ),
        ({"sparsitty": 0.5}, "recipe key 'sparsitty' is unknown; did you mean 'sparsity'"),
        ({"zzz": 0.5}, "recipe key 'zzz' is unknown; the keys are method, sparsity, keep"),
    ],
)
def test_what_a_call_cannot_say(said, says):
    with pytest.raises(BadInput, match=says):
        sc.Recipe.from_dict(said)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sparsity: 1.5", "sparsity=1.5: give the share"),
        ("sparsity: lots", r"sparsity: .*valid number.*\(found 'lots'\)"),
        ("sparsity: yes", "sparsity: no key takes yes or no"),
        ("sparsitty: 0.5", "recipe key 'sparsitty' is unknown; did you mean 'sparsity'"),
        ("7: 0.5", "recipe key 7 is unknown"),
        ("every: 1.5", r"every: .*\(found 1.5\)"),
        ("method: 5", r"method: .*\(found 5\)"),
        ("include: [1]", r"include.0: .*\(found 1\)"),
        ("overrides: {fc: 2.0}", r"overrides\['fc'\]=2.0"),
        ("enforcement: kep", "enforcement='kep' is unknown.*did you mean 'keep'"),
        ("- gmp", "must be a mapping of keys to values, found list"),
        ("", "must be a mapping of keys to values, found NoneType"),
        ("method: [", "is not YAML"),
        ("method: gmp\nsparsity: 0.5\nsparsity: 0.9", "key 'sparsity' is given twice"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),  # never executed
    ],
)
def test_what_a_file_cannot_say_names_the_file_and_the_key(write, text, says):
    path = write(text, "mine.yaml")
    with pytest.raises(BadInput, match=says) as error:
        sc.Recipe.from_yaml(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(BadInput, match=r"none\.yaml' cannot be read"):
        sc.Recipe.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"bytes\.yaml' cannot be read"):
        sc.Recipe.from_yaml(tmp_path / "bytes.yaml")


def test_structures_in_every_spelling_are_one_recipe():
    plain = sc.Recipe("magnitude", structures=("channels",), flops=0.5)
    assert sc.Recipe.of("channels", {"flops": 0.5}) == sc.Recipe("channels", flops=0.5) == plain
    assert sc.Recipe.of("magnitude", {"structure": "channels", "flops": 0.5}) == plain
    assert sc.Recipe.of("magnitude", {"structure": ["channels"], "flops": 0.5}) == plain
    assert sc.Recipe.from_dict(plain.to_dict()) == plain
    both = sc.Recipe.of("heads", {"structures": ["neurons"], "ratio": 0.2})
    assert both.structures == ("heads", "neurons") and both.method == "magnitude"


@pytest.mark.parametrize(("settings", "says"), [
    ({"flops": 0.5}, "flops=0.5 is for whole structures"), ({"scope": "local", "sparsity": 0.5}, "scope='local' is for whole"),
    ({"structures": ["chanels"]}, "did you mean 'channels'"),
    ({"structures": ["heads"], "structure": "channels"}, "differ; give one of them"),
    ({"structures": ["heads"], "structure": "2:4"}, "makes zeros"),
    ({"structures": ["heads"], "flops": 0.5, "params": 0.5}, "flops and params say the same thing twice"),
    ({"structures": ["heads"], "round_to": 0}, "round_to=0"),
])  # fmt: skip
def test_what_is_said_of_structures_must_fit(settings, says):
    with pytest.raises(BadInput, match=says):
        sc.Recipe("magnitude", **settings)
