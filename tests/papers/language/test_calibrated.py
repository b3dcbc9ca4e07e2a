"""What must hold of all methods however they are calibrated, and of ECoFLaP's allocation."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import secateurs as sc
from tests.models.families import batches, family
from tests.papers.language.pruning import INSIDE, METHODS, bits, data, matrices, network, prune, same

every = pytest.mark.parametrize("method", METHODS)


# -- ECoFLaP


@pytest.mark.parametrize(("method", "sparsity"), [("magnitude", 0.3), ("wanda", 0.7), ("sparsegpt", 0.5)])
def test_ecoflap_meets_the_total_within_its_cap_and_shares_it_in_a_block(method, sparsity):
    pytest.importorskip("transformers")
    model, given = family("llama", torch.float32, num_hidden_layers=3), batches("llama", 1, torch.float32)
    pruned = prune(model, method, given, sparsity=sparsity, allocation="ecoflap")
    assert pruned.plan.removed == math.floor(sparsity * 3 * 1920 + 0.5)
    blocks: dict[str, list[float]] = {}
    for entry in pruned.plan.entries:
        assert entry.removed / entry.size <= sparsity + 0.1 + 1 / entry.size
        blocks.setdefault(".".join(entry.name.split(".")[:3]), []).append(entry.removed / entry.size)
    assert len(blocks) == 3 and all(max(shares) - min(shares) <= 1 / 128 + 1e-9 for shares in blocks.values())
    assert len({round(shares[0], 2) for shares in blocks.values()}) > 1


def test_ecoflap_with_the_cap_at_the_sparsity_is_uniform():
    model, given = network(), data()
    capped = prune(model, "wanda", given, sparsity=0.5, allocation="ecoflap", allocation_options={"most": 0.5})
    assert capped.plan.diff(prune(model, "wanda", given, sparsity=0.5).plan) == []


def test_ecoflaps_first_stage_leaves_every_bit_of_the_model():
    model = network()
    before = copy.deepcopy(bits(model))
    done = sc.prune(model, "wanda", sparsity=0.5, allocation="ecoflap", calibration=data(), inplace=True)
    for name, value in model.state_dict().items():
        kept = done.plan.masks.get(name, torch.ones(value.shape, dtype=torch.bool))
        old = before[name].view(value.dtype)
        assert torch.equal(value[kept].view(torch.uint8), old[kept].view(torch.uint8))


# -- calibration: order, batches, offload; save and load


@every
def test_the_order_and_the_number_of_batches_are_immaterial(method):
    model, given = network(), data()
    whole = [(torch.cat([x for x, _ in given]), torch.cat([y for _, y in given]))]
    first = prune(model, method, given, sparsity=0.5)
    for other in (given[::-1], whole, [(x[i : i + 5], y[i : i + 5]) for x, y in given for i in (0, 5)]):
        again = prune(model, method, other, sparsity=0.5)
        assert again.plan.diff(first.plan) == []
        for a, b in zip(matrices(again.model).values(), matrices(first.model).values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "gblm"])
def test_padding_is_immaterial(method):
    pytest.importorskip("transformers")
    model, given = family("llama", torch.float32), batches("llama", 2, torch.float32)
    padded = []
    for batch in given:
        ids = nn.functional.pad(batch["input_ids"], (0, 4), value=5)
        padded.append({"input_ids": ids, "attention_mask": (torch.arange(10) < 6).long().expand(2, 10)})
    first, second = (prune(model, method, one, sparsity=0.5) for one in (given, padded))
    assert second.plan.diff(first.plan) == []
    for a, b in zip(matrices(second.model).values(), matrices(first.model).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_offloaded_is_in_memory_to_the_bit(method, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model, given = family("llama", torch.float32), batches("llama", 3, torch.float32)
    expected = prune(model, method, given, sparsity=0.5)
    if method != "magnitude":
        spilled = prune(model, method, given, sparsity=0.5, budget=0, scratch=tmp_path)
        assert same(bits(spilled.model), bits(expected.model)) and not list(tmp_path.iterdir())
    if method == "gblm":
        return  # its gradients are summed block by block in files: equal to rounding, and tested there
    model.save_pretrained(tmp_path / "model")
    words = {"include": INSIDE} if method == "magnitude" else {"calibration": given}
    sc.train.prune_folder(tmp_path / "model", method, sparsity=0.5, out=tmp_path / "out", memory=64 * 10**9, **words)
    again = type(model).from_pretrained(tmp_path / "out", local_files_only=True)
    assert same(bits(again), bits(expected.model))


@every
@pytest.mark.parametrize("format", ["secateurs", "huggingface"])
def test_saved_and_loaded_gives_the_same_logits(method, format, tmp_path):
    pytest.importorskip("transformers")
    model, given = family("llama", torch.float32), batches("llama")
    pruned = prune(model, method, given, sparsity=0.5).model
    sc.save(pruned, tmp_path / "out", format=format)
    kind = type(model)
    again = sc.load(tmp_path / "out") if format == "secateurs" else kind.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(again.eval()(**given[0]).logits, pruned(**given[0]).logits)
        assert not torch.equal(pruned(**given[0]).logits, model(**given[0]).logits)
