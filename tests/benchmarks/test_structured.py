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

import secateurs as sc
from benchmarks.nets.resnet import ResNet
from benchmarks.structured import ours, page, run, task
from benchmarks.structured.task import Cut, Judge
from benchmarks.tasks.cifar import MEAN, STD
from benchmarks.tasks.pictures import Pictures
from secateurs.comparing.spec import SCHEMA
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
    monkeypatch.setattr(run, "Judge", lambda *settings: judge)
    for _ in range(2):
        assert run.main(Narrow(), ["--out", str(tmp_path), "--epochs", "1"]) == 1
    rows = {row["run"]: row for row in read_rows(tmp_path / "narrow.jsonl")[0]}
    assert rows["half-epochs-1"]["status"] == "done" and rows["half-epochs-1"]["flops"] < 0.5
    assert rows["broken-epochs-1"]["reason"] == "RuntimeError: no such width"
    lines = [json.loads(line)["run"] for line in (tmp_path / "narrow.jsonl").read_text().splitlines()]
    assert lines.count("half-epochs-1") == 1
    (tmp_path / "narrow.jsonl").rename(tmp_path / page.FILES[0])
    assert "| narrow 1 | half |" in page.section(tmp_path)


def _row(run: str, tool: str, **more: float) -> dict[str, object]:
    return {"schema": SCHEMA, "run": run, "status": "done", "tool": tool, "flops": 0.5, "parameters": 1, "dense_parameters": 2,
            "seconds": 0.1, "latency": 0.7, "straight": 0.5, "reestimated": 0.6, "test_images": 50, "calibration": 1024,
            "load": 2.0, **more}  # fmt: skip


def test_the_section_has_every_run_once_and_says_what_is_best(tmp_path: Path) -> None:
    ours = [_row("a-epochs-1", "ours 1", trained=0.8, epochs=1, train_images=640, proof_seconds=1, exported=True),
            _row("a-epochs-0", "ours 1", straight=0.4, latency=0.65, load=1.0),
            _row("b-epochs-0", "ours 1", latency=0.6)]  # fmt: skip
    theirs = [_row("c-epochs-0", "theirs 1", straight=0.3, reestimated=0.7)]
    for file, rows in zip(page.FILES, (ours, theirs), strict=True):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = page.section(tmp_path)
    assert text.count("| ours 1 |") == 2
    assert "| a* | 50.0% | 50.0% | 50.0% | 60.0% | 80.0% (640) | 50 | 0.65 | 0.100 s | 1.0 s |" in text
    assert "- Straight, the most accurate: ours 1 50.0% (a); theirs 1 30.0% (c)." in text
    assert "- Re-estimated, the most accurate: ours 1 60.0% (a); theirs 1 70.0% (c)." in text
    assert "- Trained, the most accurate: ours 1 80.0% (a)." in text
    assert "- The shortest time of a batch: ours 1 0.60 (b); theirs 1 0.70 (c)." in text


def test_ours_cuts_as_prune_does(judge: Judge) -> None:
    cut = ours.Ours().cut("magnitude-inside", judge, 0.6)
    example, settings = torch.randn(task.EXAMPLE), ours.RUNS["magnitude"][1]
    done = sc.prune(judge.dense, "channels", example=example, flops=0.6, exclude=ours._residual(), **settings)
    assert not cut.more["exported"] and cut.seconds > 0
    assert all(torch.equal(a, b) for a, b in zip(cut.model.parameters(), done.model.parameters(), strict=True))
    assert judge.row("magnitude", "tool 1", cut)["flops"] <= 0.6


def test_the_first_convolution_goes_before_the_rest(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ours.AFTER_STEM, "l1", (0.25, "l1-filters", {"flops": 0.55}))
    assert "l1-stem" in list(ours.Ours().names())
    cut = ours.Ours().cut("l1-stem", judge, 0.9)
    assert cut.model.get_parameter("conv1.weight").shape[0] == 3 and not cut.more["exported"]
    assert judge.row("l1", "tool 1", cut)["flops"] <= 0.55
