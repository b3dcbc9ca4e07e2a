"""A study from YAML or a mapping: what it may say, and what is refused with the place and the nearest names."""

import dataclasses

import pytest

from secateurs.comparing.studies.filters import Layers
from secateurs.comparing.studies.recipe import from_dict, read
from secateurs.errors import BadInput

TASK = {"name": "digits", "model": "nets:build", "data": "nets:load", "steps": 40, "dense": {"steps": 200}}
STUDY = {"name": "tiny", "task": TASK, "layers": ["conv1.weight"], "ratio": 0.4}

YAML = """
task: {name: digits, model: "nets:build", data: "nets:load", steps: 40, dense: {steps: 200}}
layers:
  - {weight: conv1.weight, with: ["bn1.*"]}
  - conv2
ratio: 0.4
samples: all
examples: 500
repeats: 2
seed: 7
"""


def test_from_yaml(tmp_path):
    (tmp_path / "oracle-tiny.yaml").write_text(YAML)
    study = read(tmp_path / "oracle-tiny.yaml")
    assert (study.name, study.ratio, study.repeats, study.seed) == ("oracle-tiny", 0.4, 2, 7)
    assert (study.samples, study.examples) == (None, 500)
    assert study.layers == (Layers("conv1.weight", ("bn1.*",)), Layers("conv2"))
    assert (study.task.steps, study.task.dense.steps, study.threads) == (40, 200, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sample": 3}, "key 'sample' is unknown; did you mean 'samples'"),
        ({"layers": None}, "key 'layers' is missing"),
        ({"layers": []}, r"layers=\[\]: give a list"),
        ({"layers": [{"weight": "a", "wiht": []}]}, "key 'wiht' is unknown; did you mean .*'with'"),
        ({"layers": [{"with": ["bn1.*"]}]}, "weight is the name of a weight"),
        ({"layers": [{"weight": "a", "with": 3}]}, "weight is the name of a weight"),
        ({"layers": [3]}, "3 is neither a name nor a mapping"),
        ({"ratio": 1.0}, "ratio=1.0"),
        ({"samples": 0}, "samples=0: give a whole number, at least 1, or all"),
        ({"samples": "some"}, "samples='some'"),
        ({"repeats": "all"}, "repeats='all': give a whole number, at least 1$"),
        ({"threads": True}, "threads=True"),
        ({"name": " "}, "give the study a name"),
        ({"task": {**TASK, "dense": None}}, "has no dense: training"),
        ({"task": {**TASK, "stpes": 3}}, "task 'digits': key 'stpes' is unknown; did you mean 'steps'"),
        ({"task": {**TASK, "seeds": 3}}, "key 'seeds' has no use in a study of filters"),
    ],
)
def test_refused(change, said):
    with pytest.raises(BadInput, match=f"^study x: .*{said}"):
        from_dict({**STUDY, **change}, "study x")


def test_names_depend_on_what_determines_a_retraining_alone():
    study = from_dict(STUDY)
    sets = [((0, 1),), ((0, 2),)]
    names = [job.name for job in study.retrainings(sets)]
    assert len(set(names)) == 6 == len(sets) * study.repeats
    same = dataclasses.replace(study, name="other", samples=9, ratio=0.2)
    assert names == [job.name for job in same.retrainings(sets)]
    for change in ({"seed": 1}, {"examples": 10}, {"threads": 2}, {"layers": (Layers("conv1"),)}):
        other = dataclasses.replace(study, **change)
        assert not set(names) & {job.name for job in other.retrainings(sets)}
    assert {job.needs for job in study.retrainings(sets)} == {(study.start().name,)}
