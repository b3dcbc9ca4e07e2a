"""The language rows of the structured benchmark, and their section, on a model of two blocks."""

from __future__ import annotations

import pytest
import torch

from benchmarks.structured import language, ours, page
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
    assert "| obspa |" in page.language_section(tmp_path)
    with pytest.raises(BadInput, match="no results"):
        page.language_section(tmp_path / "empty")


@pytest.mark.parametrize("runs", [ours.RUNS, language.RUNS])
def test_every_run_names_a_method_and_lawful_settings(runs):
    for method, settings in runs.values():
        if method and method != "channels":
            find_method(method)(settings.get("options"))
