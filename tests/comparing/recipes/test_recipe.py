"""A comparison's recipe: what a file says, what Python says, and everything that cannot work, with its place."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest

from secateurs.comparing.recipes.checks import check
from secateurs.comparing.recipes.recipe import from_dict, read, task_from
from secateurs.comparing.spec import PROTOCOLS, Arm, Comparison, Dense, Optimizer, Point, Task
from secateurs.errors import BadInput

pytest.importorskip("pydantic")
pytest.importorskip("yaml")

TEXT = """
name: fair
seeds: 5
sparsities: [0.8, 0.9]
threads: 2
methods:
  - magnitude
  - {name: global, method: magnitude, allocation: global, exclude: null}
  - {name: gmp linear, method: gmp, schedule: linear, begin: 0.1, end: 200, every: 20, options: {order: layerwise}}
  - {name: half, method: magnitude, structure: 2:4}
  - {protocol: scratch-b, of: magnitude, cap: 1.5}
  - {protocol: reshuffled, of: half}
  - {protocol: iterative, method: magnitude, rounds: 4}
  - small-dense
tasks:
  - name: digits
    model: my_tasks:build
    model_options: {classes: 10, norm: true}
    data: my_tasks.data:load
    steps: 300
    width: 64
    widths: {from: 16, to: 64, step: 16}
    dense: {steps: 600, optimizer: {lr: 0.1, rate: drops, milestones: [0.5, 0.9]}}
    optimizer: {name: adamw, lr: 1e-3}
    selection: {exclude: fc3.*}
    metric: my_tasks:score
    direction: lower
    seeds: [7, 8]
    autocast: yes
"""


@pytest.fixture
def write(tmp_path):
    def writing(text, name="mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return writing


def test_a_file_says_what_the_dataclasses_say(write):
    digits = Task(
        "digits", "my_tasks:build", "my_tasks.data:load", 300, model_options={"classes": 10, "norm": True}, width=64,
        widths=(16, 32, 48, 64), dense=Dense(600, optimizer=Optimizer(rate="drops", milestones=(0.5, 0.9))),
        optimizer=Optimizer("adamw", lr=0.001), selection={"exclude": "fc3.*"}, metric="my_tasks:score", direction="lower",
        seeds=(7, 8), autocast=True,
    )  # fmt: skip
    gmp = {"method": "gmp", "schedule": "linear", "begin": 0.1, "end": 200, "every": 20, "options": {"order": "layerwise"}}
    arms = (
        Arm("magnitude", settings={"method": "magnitude"}),
        Arm("global", settings={"method": "magnitude", "allocation": "global"}),
        Arm("gmp linear", settings=gmp),
        Arm("half", settings={"method": "magnitude", "structure": "2:4"}),
        Arm("scratch-b of magnitude", "scratch-b", of="magnitude", cap=1.5),
        Arm("reshuffled of half", "reshuffled", of="half"),
        Arm("iterative magnitude", "iterative", settings={"method": "magnitude"}, rounds=4),
        Arm("small-dense", "small-dense"),
    )
    expected = Comparison("fair", (digits,), arms, (Point(0.8), Point(0.9)), (0, 1, 2, 3, 4), 2)
    assert read(write(TEXT)) == expected
    assert [type(width) for width in expected.tasks[0].widths] == [int] * 4
    check(expected)


TASK = {"name": "t", "model": "m:build", "data": "m:load", "steps": 100}
SMALL = {"name": "c", "sparsities": [0.5], "methods": ["magnitude"], "tasks": [TASK]}


def test_what_is_left_out():
    comparison = from_dict(SMALL)
    magnitude = Arm("magnitude", settings={"method": "magnitude"})
    assert comparison == Comparison("c", (Task("t", "m:build", "m:load", 100),), (magnitude,), (Point(0.5),))
    assert (comparison.seeds, comparison.threads) == ((0, 1, 2), 1)


def test_the_file_gives_the_name_and_compressions_are_points(write):
    text = json.dumps({**{k: v for k, v in SMALL.items() if k not in ("name", "sparsities")}, "compressions": [2, 4.5]})
    comparison = read(write(text, "my grid.yaml"))
    assert comparison.name == "my grid"
    assert [point.label for point in comparison.points] == ["2x", "4.5x"]


def test_functions_stand_for_their_names():
    def build(): ...

    def score(model, split): ...

    task = task_from({**TASK, "model": build, "metric": score, "direction": "higher"})
    assert (task.model, task.metric, task.data) == (build, score, "m:load")


def test_settings_have_one_spelling_because_runs_are_named_by_them():
    short = {"method": "magnitude", "overrides": {"a": 0.5}}
    long = {"overrides": {"a": 0.5}, "criterion": None, "method": "magnitude", "options": {}, "initial_sparsity": 0}
    first, second = (from_dict({**SMALL, "methods": [arm]}).arms[0] for arm in (short, long))
    assert first == second


@pytest.mark.parametrize(
    ("said", "widths"),
    [
        ({"from": 4, "to": 10, "step": 3}, (4, 7, 10)),
        ({"from": 4, "to": 9, "step": 3}, (4, 7)),
        ({"from": 0.1, "to": 0.3, "step": 0.1}, (0.1, 0.2, 0.3)),
        ({"from": 5, "to": 5, "step": 1}, (5,)),
        ([8, 0.5], (8, 0.5)),
    ],
)
def test_widths(said, widths):
    assert task_from({**TASK, "width": 64, "widths": said}).widths == widths


def test_a_stored_model_lies_beside_the_recipe(write, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "net.safetensors").write_bytes(b"")
    dense = {"steps": 5, "checkpoint": "net.safetensors"}
    path = write(json.dumps({**SMALL, "tasks": [{**TASK, "dense": dense}]}), "deep/x.yaml")
    monkeypatch.chdir(tmp_path)
    assert read(path).tasks[0].dense.checkpoint == "deep/net.safetensors"  # below the working folder: the same everywhere
    monkeypatch.chdir(tmp_path / "deep")
    assert read("x.yaml").tasks[0].dense.checkpoint == "net.safetensors"
    monkeypatch.chdir("/")
    assert read(path).tasks[0].dense.checkpoint == str(tmp_path / "deep" / "net.safetensors").removeprefix("/")
    (tmp_path / "deep" / "net.safetensors").unlink()
    with pytest.raises(BadInput, match=r"task 't': dense: checkpoint 'net\.safetensors' is no file in '.*deep'"):
        read(path)


def changed(where, value):
    """``SMALL`` with one thing otherwise: ``where`` is a path of keys, or ``methods+`` for one more arm."""
    data = copy.deepcopy(SMALL)
    if where == "methods+":
        data["methods"].append(value)
        return data
    *path, last = where.split(".")
    inside = data
    for key in path:
        inside = inside[int(key)] if isinstance(inside, list) else inside.setdefault(key, {})
    inside[int(last) if isinstance(inside, list) else last] = value
    return data


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("sparsitys", [0.5], "key 'sparsitys' is unknown; did you mean 'sparsities'"),
        ("zzz", 1, "key 'zzz' is unknown; the keys are name, tasks, methods"),
        ("name", "a/b", "name='a/b': give a name that can be that of a folder"),
        ("name", "..", "name='..'"),
        ("name", 5, "name=5"),
        ("seeds", 0, "seeds=0: give how many"),
        ("seeds", True, "seeds=True: give how many"),
        ("seeds", [], "seeds: name at least one"),
        ("seeds", [1, -1], "seeds=-1: give a whole number, at least 0"),
        ("seeds", [1, 2, 1], "seeds: 1 is there twice"),
        ("threads", 0, "threads=0: give a whole number, at least 1"),
        ("threads", 1.5, "threads=1.5"),
        ("sparsities", [0.5, 1.0], "sparsities=1.0: give the share of weights to remove"),
        ("sparsities", [90], "sparsities=90"),
        ("sparsities", 0.5, "sparsities=0.5: give a list"),
        ("sparsities", [], r"sparsities=\[\]: give a list"),
        ("sparsities", [0.5, 0.5], "sparsities: 0.5 is there twice"),
        ("sparsities", None, "how much does 'magnitude' remove on task 't'"),
        ("compressions", [2], "sparsities and compressions both say"),
        ("methods", [], r"methods=\[\]: give a list with at least one"),
        ("tasks", {"t": 1}, "tasks=.*give a list"),
        ("tasks", [TASK, TASK], "tasks: 't' is there twice; give each a name of its own"),
        ("tasks", ["mnist"], "tasks: 'mnist' is not a task"),
        ("tasks.0", {"model": "m:build"}, "tasks: key 'name' is missing"),
        ("tasks.0", {"name": "t"}, "task 't': key 'model' is missing"),
        ("tasks.0.stpes", 5, "task 't': key 'stpes' is unknown; did you mean 'steps'"),
        ("tasks.0.steps", 0, "task 't': steps=0: give a whole number, at least 1"),
        ("tasks.0.steps", -3, "task 't': steps=-3"),
        ("tasks.0.steps", 1.5, r"task 't': steps: .*\(found 1.5\)"),
        ("tasks.0.steps", "many", r"task 't': steps: .*\(found 'many'\)"),
        ("tasks.0.steps", True, "task 't': steps: takes no yes or no"),
        ("tasks.0.name", 5, r"task 5: name: .*\(found 5\)"),
        ("tasks.0.model", 5, r"task 't': model.*\(found 5\)"),
        ("tasks.0.model", "build", "task 't': model='build': give a function as module:function"),
        ("tasks.0.data", "load.py:load all", "task 't': data='load.py:load all'"),
        ("tasks.0.loss", "cross-entropi",
         "task 't': loss='cross-entropi': give one of cross-entropy, .*did you mean 'cross-entropy'"),
        ("tasks.0.train", "builtin", "task 't': train='builtin': .*did you mean 'built-in'"),
        ("tasks.0.metric", "top1", "task 't': metric='top1': give one of top-1, .*did you mean 'top-1'"),
        ("tasks.0.metric", "m:score", "task 't': metric 'm:score' is your own: say which is better"),
        ("tasks.0.direction", "lower", "task 't': direction='lower': metric 'top-1' is better higher"),
        ("tasks.0.direction", "up", "task 't': direction 'up' is unknown; use one of higher, lower"),
        ("tasks.0.evaluate_on", "tests", "task 't': evaluate_on 'tests' is unknown.*did you mean 'test'"),
        ("tasks.0.evaluate_every", 0, "task 't': evaluate_every=0"),
        ("tasks.0.batch", 0, "task 't': batch=0"),
        ("tasks.0.optimizer.name", "sdg", "task 't': optimizer: name 'sdg' is unknown; .*did you mean 'sgd'"),
        ("tasks.0.optimizer.rate", "cosin", "task 't': optimizer: rate 'cosin' is unknown.*did you mean 'cosine'"),
        ("tasks.0.optimizer.learning_rate", 1, "task 't': optimizer: key 'learning_rate' is unknown; the keys are name, lr"),
        ("tasks.0.optimizer", "sgd", "task 't': optimizer='sgd': give a mapping; its keys are name, lr"),
        ("tasks.0.optimizer.lr", 0, "task 't': optimizer: lr=0.0: give a number, above 0"),
        ("tasks.0.optimizer.lr", float("inf"), "task 't': optimizer: lr=inf"),
        ("tasks.0.optimizer.lr", "fast", r"task 't': optimizer.lr: .*\(found 'fast'\)"),
        ("tasks.0.optimizer.momentum", 1, "task 't': optimizer: momentum=1.0: give a number, at least 0 and below 1"),
        ("tasks.0.optimizer.milestones", [0.9, 0.5], "task 't': optimizer: milestones=.*in order"),
        ("tasks.0.optimizer.milestones", [0.5, 100],
         "task 't': optimizer: milestones=100.0: give a number, shares of training"),
        ("tasks.0.optimizer.clip", -1, "task 't': optimizer: clip=-1.0"),
        ("tasks.0.optimizer", {"name": "adam", "nesterov": True}, "task 't': optimizer: nesterov needs sgd with a momentum"),
        ("tasks.0.dense.step", 5, "task 't': dense: key 'step' is unknown; did you mean 'steps'"),
        ("tasks.0.dense", {"steps": 0}, "task 't': dense: steps=0"),
        ("tasks.0.dense", {"steps": 5, "optimizer": {"rte": 1}}, "task 't': dense: optimizer: key 'rte' is unknown; .*'rate'"),
        ("tasks.0.dense", {"steps": 5, "optimizer": {"rate": "x"}}, "task 't': dense: rate 'x' is unknown"),
        ("tasks.0.selection", {"exlude": "a"}, "task 't': selection: key 'exlude' is unknown; did you mean 'exclude'"),
        ("tasks.0.selection", {"exclude": 5}, "task 't': selection: exclude=5: give a name, or a list"),
        ("tasks.0.seeds", [2, 2], "task 't': seeds: 2 is there twice"),
        ("tasks.0.sparsities", [0.5, 2], "task 't': sparsities=2: give the share"),
        ("tasks.0.width", "wide", "task 't': width='wide': give a number, above 0"),
        ("tasks.0.widths", [4, 8], "task 't': widths are given, but not the width"),
        ("tasks.0.widths", {"from": 4}, "task 't': widths=.*give a list, or {from: 4, to: 64, step: 4}"),
        ("tasks.0.widths", {"from": 4, "to": 8, "step": 0}, "task 't': widths=.*step is above 0"),
        ("tasks.0.widths", {"from": "a", "to": 8, "step": 1}, "task 't': widths=.*are numbers"),
        ("tasks.0", {**TASK, "width": 4, "model_options": {"width": 4}}, "task 't': width is given twice"),
        ("tasks.0", {**TASK, "width": 4, "widths": [4, 0]}, "task 't': widths=0: give a number, above 0"),
        ("tasks.0.data_options", {"a": {1, 2}}, "task 't': options are plain numbers, .*set"),
        ("methods+", "magnitud", r"methods: 'magnitud' is neither a method .* nor a protocol .*did you mean 'magnitude'"),
        ("methods+", "magnitude", "methods: 'magnitude' is there twice; give each a name of its own"),
        ("methods+", 5, "methods: 5 is neither a name nor a mapping"),
        ("methods+", {"name": "x"}, "methods: 'x': say which method prunes"),
        ("methods+", {"protocol": "iterative"}, "methods: 'iterative': say which method prunes"),
        ("methods+", {"method": "gmpp"}, "methods: 'gmpp': method 'gmpp' is unknown; .*did you mean 'gmp'"),
        ("methods+", {"method": ["gmp"]}, r"methods: .*method: .*\(found \['gmp'\]\)"),
        ("methods+", {"method": "gmp", "shedule": "x"},
         "methods: 'gmp': key 'shedule' is unknown in protocol 'prune'; .*'schedule'"),
        ("methods+", {"method": "gmp", "schedule": "cubical"}, "methods: 'gmp': schedule='cubical' is unknown"),
        ("methods+", {"method": "gmp", "end": 101},
         "task 't': methods: 'gmp': end=101 is behind the last of 100 training steps"),
        ("methods+", {"method": "gmp", "begin": "x"}, "methods: 'gmp': begin='x': as text this is a share of the run's"),
        ("methods+", {"method": "gmp", "initial_sparsity": 0.6},
         "task 't': methods: 'gmp': initial_sparsity=0.6 is above the final 0.5"),
        ("methods+", {"method": "gmp", "options": {"ordr": 1}}, "methods: 'gmp': 'gmp' has no option 'ordr'"),
        ("methods+", {"method": "taylor", "allocation": "globl"}, "methods: 'taylor': allocation='globl' is unknown"),
        ("methods+", {"method": "taylor", "structure": "2:4"}, "methods: 'taylor': structure='2:4' fixes the share"),
        ("methods+", {"method": "taylor", "begin": 5},
         "methods: 'taylor': key 'begin' has no use here: method 'taylor' prunes at once"),
        ("methods+", {"method": "taylor", "enforcement": "keep"}, "key 'enforcement' has no use here"),
        ("methods+", {"method": "taylor", "schedule": "one-shot"}, "key 'schedule' has no use here"),
        ("methods+", {"method": "wanda", "schedule": "cubic"}, "key 'schedule' has no use here: method 'wanda' prunes at once"),
        ("methods+", {"method": "taylor", "schedule": "linear", "protocol": "iterative"}, "'schedule' has no use here"),
        ("methods+", {"method": "taylor", "schedule": "cubic", "end": 101}, "end=101 is behind the last of 100 training steps"),
        ("methods+", {"method": "taylor", "sparsity": 0.5},
         "methods: 'taylor': key 'sparsity' is not a method's to say: the comp"),
        ("methods+", {"method": "taylor", "exclude": "a"},
         "key 'exclude' is not a method's to say: say it in the task's selection"),
        ("methods+", {"method": "taylor", "seed": 1}, "key 'seed' is not a method's to say: the comparison's seeds"),
        ("methods+", {"method": "gmp", "total_steps": 9}, "key 'total_steps' is not a method's to say: the task's steps"),
        ("methods+", {"protocol": "scratch-f", "of": "magnitude"}, "protocol 'scratch-f' is unknown; .*did you mean 'scratch-"),
        ("methods+", {"protocol": ["x"]}, r"protocol \['x'\] is unknown"),
        ("methods+", "scratch-e", "methods: 'scratch-e': 'scratch-e' takes the masks of another method: say of which"),
        ("methods+", {"protocol": "scratch-e", "of": "magnitud"},
         "of='magnitud' is none of the methods; .*did you mean 'magnitude'"),
        ("methods+", {"protocol": "scratch-e", "of": "magnitude", "cap": 3}, "key 'cap' is unknown in protocol 'scratch-e'"),
        ("methods+", {"protocol": "scratch-b", "of": "magnitude", "cap": 0.5}, "cap=0.5: give a number, at least 1"),
        ("methods+", {"protocol": "scratch-b", "of": "magnitude", "cap": True}, "cap: takes no yes or no"),
        ("methods+", {"protocol": "dense", "method": "magnitude"},
         "methods: 'dense': key 'method' is unknown in protocol 'dense'"),
        ("methods+", {"method": "taylor", "rounds": 3}, "key 'rounds' is unknown in protocol 'prune'"),
        ("methods+", {"protocol": "iterative", "method": "gmp", "rounds": 3},
         "'iterative gmp': method 'gmp' prunes while it trains"),
        ("methods+", {"protocol": "iterative", "method": "magnitude", "rounds": 0},
         "rounds=0: give a whole number, at least 1"),
        ("methods+", {"protocol": "iterative", "method": "magnitude", "rounds": 101},
         "task 't': .*rounds=101 do not fit into 100"),
        ("methods+", {"protocol": "iterative", "method": "magnitude", "structure": "2:4"},
         "structure='2:4' removes its share at once"),
        ("methods+", "small-dense",
         "task 't': methods: 'small-dense': 'small-dense' chooses among the task's widths, and it has none"),
        ("methods+", "start", "methods: 'start': the start, .* by itself"),
        ("methods+", {"name": "start", "method": "taylor"}, "methods: 'start': the start"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_quoted_with_its_place(where, value, says):
    data = changed(where, value)
    with pytest.raises(BadInput, match=says) as error:
        from_dict(data, "comparison 'mine.yaml'")
    assert str(error.value).startswith("comparison 'mine.yaml': ")


@pytest.mark.parametrize("of", ["small", "masks"])
def test_masks_come_from_an_arm_that_prunes(of):
    task = {**TASK, "width": 4, "widths": [2, 4]}
    masks = {"name": "masks", "protocol": "rewound", "of": "magnitude"}
    arms = ["magnitude", {"name": "small", "protocol": "small-dense"}, masks]
    with pytest.raises(BadInput, match=rf"of='{of}' follows protocol '.*', which prunes nothing; those that prune are magni"):
        from_dict({**SMALL, "tasks": [task], "methods": [*arms, {"protocol": "scratch-e", "of": of}]})


def test_the_initial_weights_of_a_stored_model_are_not_known(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    data = {**SMALL, "tasks": [{**TASK, "dense": {"steps": 5, "checkpoint": "x"}}]}
    data["methods"] = ["magnitude", {"protocol": "rewound", "of": "magnitude"}]
    with pytest.raises(BadInput, match="task 't': methods: 'rewound of magnitude': 'rewound' goes back to the initial weights"):
        from_dict(data, folder=tmp_path)


@pytest.mark.parametrize("key", ["name", "tasks", "methods"])
def test_what_must_be_said(key):
    with pytest.raises(BadInput, match=f"^key '{key}' is missing"):
        from_dict({k: v for k, v in SMALL.items() if k != key})


@pytest.mark.parametrize(
    ("text", "says"),
    [("- a", "must be a mapping"), ("a: [", "is not YAML"), ("!!python/object/apply:os.getcwd []", "is not YAML"),
     ("tasks: []\nmethods: [gmp]", "tasks=.*give a list")],
)  # fmt: skip
def test_files_that_say_nothing(write, text, says):
    path = write(text)
    with pytest.raises(BadInput, match=says) as error:
        read(path)
    assert f"comparison {str(path)!r}" in str(error.value)
    with pytest.raises(BadInput, match=r"none\.yaml' cannot be read"):
        read(path.with_name("none.yaml"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": (Arm("a", "dense", settings={"method": "gmp"}),)}, "protocol 'dense' takes no choices of a pruning method"),
        ({"arms": (Arm("a", "dense", of="b"),)}, "of='b': protocol 'dense' takes no masks"),
        ({"arms": (Arm(" ", "dense"),)}, "name=' '"),
        ({"arms": ()}, "methods: name at least one"),
        ({"points": (Point(),)}, r"a point is a sparsity or a compression"),
        ({"points": (Point(compression=0.5),)}, "compressions=0.5: give a number, how many times smaller"),
        ({"points": (Point(0.5), Point(0.5))}, "sparsities: '50 %' is there twice"),
    ],
)
def test_a_comparison_made_in_python_is_checked_too(change, says):
    with pytest.raises(BadInput, match=says):
        check(dataclasses.replace(from_dict(SMALL), **change))


PAGE = (Path(__file__).parents[3] / "docs" / "compare.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("## The recipe", {"name", "tasks", "methods", "sparsities", "compressions", "seeds", "threads"}),
        ("### Tasks", {f.name for f in dataclasses.fields(Task)}),
        ("### The dense model", {f.name for f in dataclasses.fields(Dense)}),
        ("### Optimizers", {f.name for f in dataclasses.fields(Optimizer)}),
        ("### Methods", {f.name for f in dataclasses.fields(Arm)} - {"settings"} | set(PROTOCOLS) - {"start"}),
    ],
)
def test_the_page_has_a_row_for_every_key(heading, keys):
    section = re.split(r"^#+ ", PAGE.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.M)[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, re.M)) == keys


def test_the_pages_example_is_a_comparison_and_its_error_is_real(write):
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    comparison = read(write(text, "digits.yaml"))
    assert (comparison.name, len(comparison.arms), len(comparison.points)) == ("digits", 6, 3)
    path = write(text.replace("    steps: 150", "    stpes: 150"), "digits.yaml")
    with pytest.raises(BadInput) as error:
        read(path)
    assert str(error.value).replace(str(path), "digits.yaml") in PAGE
