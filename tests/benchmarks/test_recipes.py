"""The committed recipes: what they name is there, and small-dense finds its rival."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secateurs.comparing.recipes import grid, recipe
from secateurs.comparing.running.task import ready
from secateurs.comparing.spec import Comparison
from secateurs.comparing.studies import recipe as oracle

RECIPES = Path(__file__).parents[2] / "benchmarks" / "recipes"
COMPARISONS = sorted(path.stem for path in RECIPES.glob("*.yaml") if not path.stem.startswith("oracle-"))
TRAINED = "benchmarks.tasks.llama:model"
STUDIES = sorted(path.stem for path in RECIPES.glob("oracle-*.yaml"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parents[1])


def _read(name: str) -> Comparison:
    return recipe.read(RECIPES / f"{name}.yaml")


@pytest.mark.parametrize("name", COMPARISONS)
def test_functions_are_found_and_models_are_built(name: str) -> None:
    comparison = _read(name)
    assert comparison.name == name
    for task in comparison.tasks:
        found = ready(task)
        assert {"model", "data"} <= set(found.code)
        if task.model == TRAINED and "SECATEURS_DATA" not in os.environ:
            pytest.skip("its model is a trained one: needs SECATEURS_DATA")
        if not task.widths:
            found.fresh(0)
            continue
        narrow, wide = (found.fresh(0, width) for width in (task.widths[0], task.widths[-1]))
        assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in wide.parameters())
        assert task.widths[-1] == task.width


def test_fair_compares_what_it_says() -> None:
    comparison = _read("fair")
    arms = {arm.name: arm for arm in comparison.arms}
    assert {arm.settings.get("method") for arm in arms.values()} - {None} == {"magnitude", "random", "taylor", "gmp"}
    assert {arm.protocol for arm in arms.values()} == {"prune", "scratch-e", "scratch-b", "small-dense", "dense"}
    assert arms["scratch-b of magnitude global"].cap == 2
    mnist, cifar = comparison.tasks
    assert (mnist.seeds, cifar.seeds) == (tuple(range(5)), tuple(range(3)))
    assert all(len(task.sparsities or ()) == 4 for task in comparison.tasks)
    assert cifar.dense and cifar.dense.checkpoint == "benchmarks/checkpoints/cifar10-resnet8.safetensors" and cifar.steps == 300
    assert len(grid.runs(comparison)) == 5 * (2 + 4 * 10) + 1 + 3 * (1 + 4 * 10)


def test_stored_model_fits_its_task() -> None:
    from secateurs.comparing.running.artefacts import fill

    task = _read("fair").tasks[1]
    assert task.dense and task.dense.checkpoint
    fill(ready(task).fresh(0), task.dense.checkpoint, "checkpoint")


@pytest.mark.parametrize("name", STUDIES)
def test_studies_cut_layers_of_their_model(name: str) -> None:
    study = oracle.read(RECIPES / f"{name}.yaml")
    names = {name for name, _ in ready(study.task).fresh(0).named_parameters()}
    assert study.samples == 40 and study.task.steps == 150
    for layer in study.layers:
        assert {layer.weight, *layer.beside} <= names
