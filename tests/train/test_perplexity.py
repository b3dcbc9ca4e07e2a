"""Perplexity a block at a time against that of the model in memory."""

import pytest
import torch

from secateurs.errors import BadInput
from secateurs.measure import perplexity
from secateurs.train import folder_perplexity
from secateurs.train import perplexity as in_files
from tests.models.families import batches, family

pytest.importorskip("transformers")


def measured(model, given):
    return perplexity(model, [{**batch, "labels": batch.get("labels", batch["input_ids"])} for batch in given])


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bloom", "falcon", "gemma3", "mixtral", "qwen3-moe"])
def test_that_of_the_model_in_memory(name, tmp_path):
    model, given = family(name, torch.float32), batches(name, count=3, dtype=torch.float32)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    told = []
    found = folder_perplexity(tmp_path, given, memory="64GB", scratch=tmp_path, progress=lambda *at: told.append(at[:2]))
    assert found.value == pytest.approx(measured(model, given), rel=1e-5)
    assert told == [(1, 2), (2, 2)]
    assert found.memory.kept in (True, None)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_logits_for_a_few_positions_at_a_time(name, tmp_path, monkeypatch):
    model, given = family(name, torch.float32), batches(name, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    given[0]["labels"] = given[0]["input_ids"].clone()
    given[0]["labels"][:, :4] = -100
    widths, forward = [], type(model.lm_head).forward

    def watched(layer, x):
        if layer.weight.shape[0] == 48:
            widths.append(x.shape[1])
        return forward(layer, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    monkeypatch.setattr(in_files, "_LOGITS", 10 * 48 * 2 * 2)
    found = folder_perplexity(tmp_path, given, memory=64 * 10**9)
    assert widths == [2, 2, 1] * 2  # of five positions that have a next one
    assert found.value == pytest.approx(measured(model, given), rel=1e-5)


def test_what_cannot_be_measured(tmp_path):
    given = batches("llama", dtype=torch.float32)
    with pytest.raises(BadInput, match="is no Hugging Face folder"):
        folder_perplexity(tmp_path, given, memory="64GB")
    family("llama", torch.float32).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="there are no batches"):
        folder_perplexity(tmp_path, [], memory="64GB")
    with pytest.raises(BadInput, match="give a number and a unit"):
        folder_perplexity(tmp_path, given, memory="2 apples")
    with pytest.raises(BadInput, match=r"is no module of this model"):
        folder_perplexity(tmp_path, given, memory="64GB", blocks="model.blocks")
