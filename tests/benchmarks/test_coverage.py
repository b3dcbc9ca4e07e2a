"""The list of architectures: what is on it builds, and what hangs, dies or fails is a row."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.coverage import apart, ours, page, plain, run
from benchmarks.coverage.architectures import LIST, listed, tenth
from benchmarks.coverage.entry import called, shaken
from benchmarks.coverage.tiny import tiny
from secateurs.comparing.store import read_rows
from secateurs.graph.groups import Group, Slice

PLAIN = list(plain.found())
KNOWN = json.loads(LIST.read_text(encoding="utf-8"))


def test_the_list_is_long_and_says_why_the_rest_is_left_out() -> None:
    names = [row["name"] for row in KNOWN["architectures"] + KNOWN["left_out"]]
    assert len(KNOWN["architectures"]) >= 120
    assert len(set(names)) == len(names)
    assert all(row["reason"] and row["stage"] in ("build", "run", "export") for row in KNOWN["left_out"])


def test_every_plain_network_is_on_the_list() -> None:
    assert {entry.name for entry in PLAIN} <= {row["name"] for row in KNOWN["architectures"]}


@pytest.mark.parametrize("entry", PLAIN, ids=[entry.name for entry in PLAIN])
def test_plain_networks_are_small_run_and_come_out_alike(entry) -> None:
    first, second = entry.build(), entry.build()
    assert sum(p.numel() for p in first.parameters()) < 1_000_000 and not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    with torch.no_grad():
        a, b = (torch.utils._pytree.tree_leaves(called(model, entry.example(model))) for model in (first, second))
    assert all(torch.isfinite(x).all() and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_fresh_models_are_shaken() -> None:
    """A forgotten bias or statistic would otherwise not show."""
    model = shaken(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    for value in (model[0].bias, model[1].bias, model[1].running_mean):
        assert value.ne(0).all()
    assert model[1].weight.ne(1).all() and model[1].running_var.ne(1).all() and (model[1].running_var > 0).all()


def test_configurations_become_tiny() -> None:
    transformers = pytest.importorskip("transformers")
    llama, swin = tiny(transformers.LlamaConfig), tiny(transformers.SwinConfig)
    assert (llama.hidden_size, llama.num_hidden_layers, llama.num_attention_heads, llama.num_key_value_heads) == (32, 2, 4, 2)
    assert llama.use_cache is False and llama.vocab_size < 100
    assert swin.embed_dim % swin.num_heads[0] == 0 and max(swin.depths) <= 2
    vision = tiny(transformers.CLIPConfig).vision_config
    assert vision.hidden_size == 32 and vision.num_hidden_layers == 2


def test_what_a_class_of_groups_holds() -> None:
    """Both layers of a 4-8-2 perceptron carry its neurons: 8 rows and a bias, 8 columns; an entry counts once."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    at = torch.arange(8)[:, None]
    members = (Slice("0.weight", 0, at, "out"), Slice("0.bias", 0, at, "bias"), Slice("1.weight", 1, at, "in"))
    again = Group("again", 8, (Slice("0.weight", 0, at, "out"),), kind="neurons")
    shares = ours.classes(model, [Group("neurons", 8, members, kind="neurons"), again])
    assert shares == {"neurons": (32 + 8 + 16) / (32 + 8 + 16 + 2)}


@pytest.mark.parametrize("name", [entry.name for entry in tenth()])
def test_a_tenth_of_the_list_loses_structure_or_says_why_not(name: str) -> None:
    row = ours.measure(name)
    assert row["status"] == "done" or row["is_refusal"], row
    assert row["status"] != "done" or 0.02 < row["removed"] < 0.8


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_of_the_whole_list_95_percent_lose_structure_and_the_rest_says_why_not(tmp_path: Path) -> None:
    run.main(["--out", str(tmp_path), "--jobs", "2"])
    rows = read_rows(tmp_path / run.TOOLS["ours"][1])[0]
    failed = {row["run"]: row["reason"] for row in rows if row["status"] != "done"}
    assert len(rows) == len(listed()) and len(failed) <= 0.05 * len(rows), failed
    assert [row for row in rows if not row.get("is_refusal", True)] == []


def test_a_refusal_is_told_from_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing prunable is a refusal; an error of Python's is not."""
    monkeypatch.setattr(ours, "trace", lambda model, example: SimpleNamespace(prunable=tuple))
    row = ours.measure("plain/lenet-5")
    assert row["status"] == "failed" and row["is_refusal"] and "no class of groups holds 10%" in row["reason"]
    monkeypatch.setattr(ours, "trace", lambda model, example: 1 // 0)
    row = ours.measure("plain/lenet-5")
    assert not row["is_refusal"] and row["reason"].startswith("ZeroDivisionError")


def _task(name: str) -> apart.Row:
    if name == "hangs":
        while True:
            pass
    if name == "raises":
        raise ValueError("one\n two")
    if name == "dies":
        import os

        os._exit(3)
    return {"status": "done", "name": name}


@pytest.mark.slow
def test_what_hangs_dies_or_fails_is_a_row() -> None:
    began = time.monotonic()
    rows = dict(apart.apart(_task, ["works", "raises", "dies", "hangs"], seconds=2, jobs=2))
    assert rows["works"] == {"status": "done", "name": "works"}
    assert rows["raises"] == {"reason": "ValueError: one two"}
    assert rows["dies"] == {"reason": "its process ended with 3"}
    assert rows["hangs"] == {"reason": "did not return within 2 s of processor time"}
    assert time.monotonic() - began < 200


def test_a_tenth_of_the_list_for_quick_tests() -> None:
    assert len(tenth()) == -(-len(listed()) // 10)
    assert {entry.family for entry in tenth()} == {"plain", "text", "vision"}


def test_the_page_counts_both_sides(tmp_path: Path) -> None:
    both = [{"name": "plain/a", "family": "plain"}, {"name": "transformers/b", "family": "text"}]
    known = {"torch": "2", "transformers": "5", "left_out": [], "architectures": both}
    (tmp_path / "list.json").write_text(json.dumps(known))
    for tool, statuses in (("secateurs", ("done", "done")), ("torch-pruning", ("failed", "done"))):
        rows = [{"schema": 1, "run": run, "tool": f"{tool} 1", "status": status, "reason": "IndexError: 3"}
                for run, status in zip(("plain/a", "transformers/b"), statuses, strict=True)]  # fmt: skip
        (tmp_path / f"{tool}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = page.section(tmp_path, tmp_path / "list.json")
    assert "| all | 2 | 2 of 2 | 0 | 0 | 1 of 2 |" in text
    assert "why it failed: IndexError (1)" in text and "secateurs 1: none failed" in text


def test_the_page_tells_refusals_from_defects_and_counts_what_was_measured(tmp_path: Path) -> None:
    names = ("plain/a", "plain/b", "plain/c", "plain/d")
    listed = [{"name": name, "family": "plain"} for name in names]
    known = {"torch": "2", "transformers": "5", "left_out": [], "architectures": listed}
    (tmp_path / "list.json").write_text(json.dumps(known))
    ours = [{"status": "done"}, {"status": "failed", "is_refusal": True, "reason": "BadInput: all frozen"},
            {"status": "failed", "is_refusal": False, "reason": "IndexError: 3"}]  # fmt: skip
    for tool, rows in (("secateurs", ours), ("torch-pruning", ours[:1])):
        lines = [json.dumps({"schema": 1, "tool": tool, "run": name, **row}) for name, row in zip(names, rows, strict=False)]
        (tmp_path / f"{tool}.jsonl").write_text("\n".join(lines) + "\n")
    text = page.section(tmp_path, tmp_path / "list.json")
    assert "| all | 4 | 1 of 3 | 1 | 1 | 1 of 1 |" in text
    assert "- `plain/b`: BadInput: all frozen" in text and "- `plain/c`: IndexError: 3" in text
