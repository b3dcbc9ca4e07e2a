"""A whole study of five filters: measured without a trace, filters silent throughout, killed and resumed to the same rows."""

import copy
import importlib.util
import io
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from secateurs.comparing.running.randomness import mixed
from secateurs.comparing.running.task import ready
from secateurs.comparing.studies import oracle, retraining
from secateurs.comparing.studies.oracle import carry_out, planned, study_oracle
from secateurs.comparing.studies.outcome import OracleOutcome
from secateurs.comparing.studies.recipe import from_dict
from secateurs.comparing.studies.retraining import mean_loss
from secateurs.errors import BadInput, NotFinite

pytest.importorskip("scipy")
console = pytest.importorskip("rich.console")
TINY = Path(__file__).with_name("tiny.py")


def quiet():
    return console.Console(file=io.StringIO())


@pytest.fixture
def tiny():
    spec = importlib.util.spec_from_file_location("tiny", TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe(tiny):
    """All 10 ways to remove 3 of 5 filters, twice. No other process can import the functions, so all happens in this one."""
    task = {"name": "tiny", "model": lambda: tiny.build(), "data": lambda: tiny.load(), "steps": 8, "batch": 16,
            "dense": {"steps": 20}, "optimizer": {"lr": 0.05, "momentum": 0.9}}  # fmt: skip
    return {"name": "five", "task": task, "layers": [{"weight": "0.weight", "with": ["1.*"]}], "ratio": 0.6, "repeats": 2}


def lasting(row):
    return {key: value for key, value in row.items() if key not in ("seconds", "versions")}


def test_measuring_the_loss_leaves_the_model_unchanged(recipe):
    task = ready(from_dict(recipe).task)
    model = task.fresh(0).train()
    model[1].eval()
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    loss = mean_loss(task, model, "train", None, 0)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())  # running statistics too
    assert all(parameter.grad is None for parameter in model.parameters()) and torch.is_grad_enabled()
    images, labels = task.data["train"].batch(torch.arange(64))
    assert loss == pytest.approx(nn.functional.cross_entropy(model.eval()(images), labels).item(), rel=1e-6)


def test_the_loss_of_some_examples_is_of_the_same_ones_each_time(recipe):
    task = ready(from_dict(recipe).task)
    model = task.fresh(0)
    some = [mean_loss(task, model, "train", 20, seed) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]
    everything = [mean_loss(task, model, "train", examples, 1) for examples in (64, 999, None)]
    assert everything[0] == everything[1] == everything[2] != some[0]
    with torch.no_grad():
        model[4].bias[0] = torch.inf
    with pytest.raises(NotFinite, match="the loss on 'train' is nan"):
        mean_loss(task, model, "train", None, 0)


def test_a_study_and_its_repetition(recipe, tmp_path):
    outcome = study_oracle(recipe, out=tmp_path, console=quiet())
    before = (tmp_path / "results.jsonl").read_bytes()
    assert len(outcome.sets) == 10 and all(s.repeats == (0, 1) for s in outcome.sets) and outcome.warnings == []
    assert outcome.first["population"] == 10 and outcome.first["layers"] == [{"name": "0.weight", "rows": 5, "kept": 2}]
    assert len({s.loss_before for s in outcome.sets}) == 10 and any(s.values[0] != s.values[1] for s in outcome.sets)
    again = study_oracle(recipe, out=tmp_path, console=quiet())
    assert again.to_dict() == outcome.to_dict() == OracleOutcome.read(tmp_path).to_dict()
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert not (tmp_path / "state").exists() or not list((tmp_path / "state").iterdir())


def test_more_samples_keep_those_that_are_done(recipe, tmp_path):
    few = study_oracle({**recipe, "samples": 2, "repeats": 1}, out=tmp_path, console=quiet())
    more = study_oracle({**recipe, "samples": 4, "repeats": 1}, out=tmp_path, console=quiet())
    assert {s.kept for s in few.sets} < {s.kept for s in more.sets} and len(more.sets) == 4
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1 + 4


def test_removed_filters_are_silent_in_every_step(recipe, tmp_path, monkeypatch):
    """Weight, norm and bias rows: exactly zero whenever the loss is taken, while the others learn."""
    seen = []
    start, job, *_ = planned(from_dict(recipe))
    carry_out(start, tmp_path, lambda *_: None)

    def watch(task, training):
        layer, norm = training.model[0].weight, training.model[1]
        first = layer.detach().clone()
        training.tell = lambda *_: seen.extend(float(of.detach()[2:].abs().sum()) for of in (layer, norm.weight, norm.bias))
        retraining_take_steps(task, training)
        assert job.kept == ((0, 1),) and (layer[:2] != first[:2]).any()

    retraining_take_steps = retraining.take_steps
    monkeypatch.setattr(retraining, "take_steps", watch)
    carry_out(job, tmp_path, lambda *_: None)
    assert seen == [0.0] * 8 * 3


def test_sets_of_a_repeat_see_the_same_batches(recipe, tmp_path, monkeypatch):
    seeds = {}
    monkeypatch.setattr(retraining, "take_steps", lambda task, training: seeds.setdefault(training.name, training.seed))
    start, *jobs = planned(from_dict(recipe))
    carry_out(start, tmp_path, lambda *_: None)
    rows = [carry_out(job, tmp_path, lambda *_: None) for job in jobs[:4]]
    assert [seeds[row["run"]] for row in rows] == [mixed(0, row["repeat"], retraining.ORDER) for row in rows]
    assert [row["repeat"] for row in rows] == [0, 1, 0, 1] and len(set(seeds.values())) == 2


def test_killed_at_any_step_and_resumed_to_the_same_row(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("secateurs.comparing.running.training.SAVE_SECONDS", -1.0)  # a checkpoint after every step
    start, job, *_ = planned(from_dict(recipe))
    carry_out(start, tmp_path, lambda *_: None)
    whole = carry_out(job, tmp_path, lambda *_: None)

    def kill_at(number):
        def tell(name, step, steps):
            if step == number:
                raise KeyboardInterrupt

        return tell

    for number in (1, 4, 7):
        with pytest.raises(KeyboardInterrupt):
            carry_out(job, tmp_path, kill_at(number))
    assert (tmp_path / "state" / f"{job.name}.pt").is_file()
    assert lasting(carry_out(job, tmp_path, lambda *_: None)) == lasting(whole)
    assert not (tmp_path / "state" / f"{job.name}.pt").exists()


def test_a_failed_retraining_is_a_row_and_is_tried_again(recipe, tmp_path, monkeypatch):
    real = retraining.retrain

    def sometimes(of, folder, tell):
        if of.repeat == 1:
            raise NotFinite("the loss is nan")
        return real(of, folder, tell)

    monkeypatch.setattr(oracle.retraining, "retrain", sometimes)
    recipe = {**recipe, "samples": 3}
    outcome = study_oracle(recipe, out=tmp_path, console=quiet())
    assert len(outcome.failures) == 3 and "3 runs failed" in outcome.warnings[0]
    assert all(s.repeats == (0,) for s in outcome.sets)
    monkeypatch.setattr(oracle.retraining, "retrain", real)
    outcome = study_oracle(recipe, out=tmp_path, console=quiet())
    assert outcome.failures == [] and all(s.repeats == (0, 1) for s in outcome.sets)


def test_lost_weights_of_the_start_are_made_again(recipe, tmp_path):
    recipe = {**recipe, "samples": 2, "repeats": 1}
    study_oracle(recipe, out=tmp_path, console=quiet())
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    assert len(study_oracle({**recipe, "samples": 3}, out=tmp_path, console=quiet()).sets) == 3


def test_the_dense_training_fails(recipe, tmp_path):
    recipe["task"]["dense"]["optimizer"] = {"lr": 1e30}
    with pytest.raises(BadInput, match=r"no finished retraining; NotFinite: .*the loss is"):
        study_oracle({**recipe, "samples": 2}, out=tmp_path, console=quiet())
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1 + 4


def test_a_folder_of_a_comparison_is_refused(recipe, tmp_path):
    row = {"schema": 1, "run": "a", "status": "done", "arm": "dense", "protocol": "dense"}
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadInput, match=r"is not of an oracle study \(run 'a'\); choose another folder"):
        study_oracle(recipe, out=tmp_path, console=quiet())


def test_a_task_without_splits(recipe, tmp_path, tiny):
    recipe["task"] |= {"data": lambda: {"train": {"x": 1}, "test": tiny.load()["test"]}, "train": lambda training: None}
    with pytest.raises(BadInput, match="a study measures the loss on 'train', which must be a split"):
        mean_loss(ready(from_dict(recipe).task), nn.Identity(), "train", None, 0)
