"""The language rows of the structured benchmark, and their section, on a model of two blocks."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.structured import language, ours
from benchmarks.structured.language_page import language_section
from secateurs.comparing.store import read_rows
from secateurs.errors import BadInput
from secateurs.registry import find_method

transformers = pytest.importorskip("transformers")


@pytest.fixture
def small(monkeypatch):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 30, (8, 12), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(language, "dense", lambda: model)
    monkeypatch.setattr(language, "calibration", lambda text, seed: [{"input_ids": part} for part in ids.split(4)])
    monkeypatch.setattr(language, "validation", lambda domain, most: [{"input_ids": ids[:most], "labels": ids[:most]}])


def test_rows_are_written_once_and_make_a_section(small, tmp_path):
    said = ["--out", str(tmp_path), "--windows", "4", "--batches", "2", "--only", "dense", "obspa"]
    for _ in range(2):
        assert language.main(said) == 0
    rows = {row["run"]: row for row in read_rows(tmp_path / language.FILE)[0]}
    assert len((tmp_path / language.FILE).read_text().splitlines()) == len(rows) == 2
    assert rows["dense"]["params"] == 1 and rows["obspa"]["params"] <= 0.8
    assert "| obspa |" in language_section(tmp_path)
    with pytest.raises(BadInput, match="no results"):
        language_section(tmp_path / "empty")


def test_the_section_sets_obspa_beside_magnitude(tmp_path):
    """Perplexities 20, 25 and 30: a quarter and a half more than the dense model's."""
    means = {"dense": (1.0, 20.0), "obspa": (0.8, 25.0), "magnitude": (0.8, 30.0)}
    same = {"schema": 1, "status": "done", "windows": 4, "calibration_tokens": 64, "seconds": 1.0}
    rows = [{**same, "run": run, "params": params, "perplexity": {"brown": mean}, "mean": mean}
            for run, (params, mean) in means.items()]  # fmt: skip
    (tmp_path / language.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = language_section(tmp_path)
    assert "OBSPA costs 25% of perplexity, and magnitude groups without a fit 50%." in text
    assert text.index("| dense |") < text.index("| obspa |") < text.index("| magnitude |")


@pytest.mark.parametrize("runs", [ours.RUNS, language.RUNS])
def test_every_run_names_a_method_and_lawful_settings(runs):
    for method, settings in runs.values():
        if method and method != "channels":
            find_method(method)(settings.get("options"))
