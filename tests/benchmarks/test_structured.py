"""The ResNet-56 benchmark: what both sides share, on a network of eight layers and random images."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.nets.resnet import ResNet
from benchmarks.structured import page, run, task
from benchmarks.structured.task import Cut, Judge
from benchmarks.tasks.cifar import MEAN, STD
from benchmarks.tasks.pictures import Pictures
from secateurs.comparing.store import read_rows


def _pictures(count: int, seed: int) -> Pictures:
    random = np.random.default_rng(seed)
    return Pictures(random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), random.integers(0, 10, count), MEAN, STD)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    torch.manual_seed(0)
    model = ResNet(8, 4).eval()
    monkeypatch.setattr(task, "dense", lambda: model)
    monkeypatch.setattr(task.cifar, "data", lambda: {"train": _pictures(256, 0), "test": _pictures(50, 1)})
    return Judge(epochs=1, repeats=1)


class Narrow:
    """A side that gives a narrower network, and fails once."""

    file = "narrow.jsonl"
    tool = "narrow 1"

    def names(self) -> Iterator[str]:
        yield from ("half", "broken")

    def cut(self, name: str, judge: Judge, flops: float) -> Cut:
        if name == "broken":
            raise RuntimeError("no such width")
        return Cut(ResNet(8, 2).eval(), 0.5)


def test_a_row_says_what_is_left_and_leaves_the_networks_alone(judge: Judge) -> None:
    pruned = copy.deepcopy(judge.dense)
    before = {name: value.clone() for name, value in pruned.state_dict().items()}
    row = judge.row("same", "tool 1", Cut(pruned, 0.25))
    assert row["flops"] == 1 and row["parameters"] == row["dense_parameters"] and row["seconds"] == 0.25
    assert all(0 <= row[key] <= 1 for key in ("straight", "reestimated", "trained"))
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())


def test_the_same_images_every_time(judge: Judge) -> None:
    first, second = task.calibration(200), task.calibration(200)
    assert [len(x) for x, _ in first] == [128, 72]
    assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(first, second, strict=True))


def test_training_is_the_same_twice(judge: Judge) -> None:
    models: list[nn.Module] = [copy.deepcopy(judge.dense) for _ in range(2)]
    for model in models:
        judge.train(model)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert not torch.equal(next(models[0].parameters()), next(judge.dense.parameters()))


def test_what_fails_is_a_row_and_what_is_done_is_not_done_again(judge: Judge, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run, "Judge", lambda epochs: judge)
    for _ in range(2):
        assert run.main(Narrow(), ["--out", str(tmp_path), "--epochs", "1"]) == 1
    rows = {row["run"]: row for row in read_rows(tmp_path / "narrow.jsonl")[0]}
    assert rows["half-epochs-1"]["status"] == "done" and rows["half-epochs-1"]["flops"] < 0.5
    assert rows["broken-epochs-1"]["reason"] == "RuntimeError: no such width"
    lines = [json.loads(line)["run"] for line in (tmp_path / "narrow.jsonl").read_text().splitlines()]
    assert lines.count("half-epochs-1") == 1
    (tmp_path / "narrow.jsonl").rename(tmp_path / page.FILES[0])
    assert "| narrow 1 | half |" in page.section(tmp_path)
