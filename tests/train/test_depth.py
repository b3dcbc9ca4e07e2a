"""Whole layers: cut, verified, saved, replayed, undone."""

from __future__ import annotations

import copy

import pytest
import torch

import secateurs as sc
from secateurs.apply import shorten, verify_shortened
from secateurs.errors import BadInput
from tests.planning.stacks import PICTURES, VECTORS, Pyramid, Stack


def by_hand(model, left):
    model = copy.deepcopy(model)
    model.steps = torch.nn.ModuleList(model.steps[n] for n in left)
    return model


@pytest.mark.parametrize("word", ["layers", "blocks"])
def test_the_lowest_magnitudes_go(word):
    """The weights are 0.2, 0.4, 0.5, 0.1 and 0.3 throughout: two of five leave 1, 2 and 4."""
    dense = Stack()
    done = sc.prune(dense, word, ratio=0.4, example=VECTORS)
    assert torch.equal(done.model(VECTORS), by_hand(dense, [1, 2, 4])(VECTORS))
    assert [step.layer_idx for step in done.model.steps] == [0, 1, 2]
    assert done.plan.entries[0].members == tuple(f"steps.{n}" for n in range(5))
    assert done.verification.ok and len(done.verification.checks) == 4
    assert sum(p.numel() for p in done.model.parameters()) == done.plan.after.parameters
    assert len(dense.steps) == 5 and dense.steps[4].layer_idx == 4


def test_named_blocks_go_without_an_amount():
    done = sc.prune(Stack(), "layers", include=["steps.1", "steps.2"], example=VECTORS)
    assert done.plan.keeps["steps"].tolist() == [0, 3, 4]


def test_lists_of_blocks_in_a_convolutional_network():
    done = sc.prune(Pyramid(), "layers", ratio=0.5, example=PICTURES)
    assert (len(done.model.first), len(done.model.second)) == (2, 2)
    assert [frozen.axis for frozen in done.plan.frozen] == ["second.0"]


def test_data_may_judge():
    batches = [(VECTORS, torch.tensor([0, 1, 0, 1, 0]))]
    done = sc.prune(Stack(), "taylor", structures=["layers"], ratio=0.4, example=VECTORS, calibration=batches)
    assert done.plan.entries[0].kept == 3
    with pytest.raises(BadInput, match="needs calibration"):
        sc.prune(Stack(), "taylor", structures=["layers"], ratio=0.4, example=VECTORS)


def test_a_plan_is_saved_replayed_and_verified(tmp_path):
    planned = sc.plan(Stack(), "layers", ratio=0.4, example=VECTORS)
    planned.save(tmp_path)
    again = sc.GroupPlan.load(tmp_path)
    done = sc.prune(Stack(), again, example=VECTORS)
    assert sc.verify(done.model, again, dense=Stack(), example=VECTORS).ok
    with torch.no_grad():
        done.model.steps[0].linear.weight[0, 0] += 1e-5
    found = sc.verify(done.model, again, dense=Stack(), example=VECTORS)
    assert [check.ok for check in found.checks[:3]] == [True, True, False]
    with pytest.raises(BadInput, match="'steps' is no list of repeated blocks"):
        sc.verify(done.model, again, dense=Pyramid(), example=PICTURES)


def test_undo_writes_what_was_trained_back():
    dense = Stack()
    done = sc.prune(dense, "layers", ratio=0.4, example=VECTORS)
    with torch.no_grad():
        done.model.steps[1].linear.bias.fill_(7)
    removed = dense.steps[3].linear.bias.clone()
    done.undo(dense)
    assert dense.steps[2].linear.bias.eq(7).all() and torch.equal(dense.steps[3].linear.bias, removed)


def test_inplace_is_the_same_object():
    model = Stack()
    done = sc.prune(model, "layers", ratio=0.4, example=VECTORS, inplace=True)
    assert done.model is model and len(model.steps) == 3


def test_save_and_load_with_the_dense_factory(tmp_path):
    once = sc.prune(Stack(), "layers", ratio=0.4, example=VECTORS).model
    sc.save(once, tmp_path / "once")
    assert torch.equal(sc.load(tmp_path / "once", Stack)(VECTORS), once(VECTORS))
    twice = sc.prune(once, "layers", include=["steps.0"], example=VECTORS).model
    narrow = sc.prune(twice, "neurons", ratio=0.5, example=VECTORS).model
    assert narrow.stem.out_features == 2 and len(narrow.steps) == 2
    sc.save(narrow, tmp_path / "narrow")
    loaded = sc.load(tmp_path / "narrow", Stack)
    assert torch.equal(loaded(VECTORS), narrow(VECTORS)) and [s.layer_idx for s in loaded.steps] == [0, 1]
    with pytest.raises(BadInput, match="another network"):
        sc.load(tmp_path / "narrow", Pyramid)


def test_narrow_layers_may_go(tmp_path):
    """Widths first, layers after: the record of widths moves with the blocks."""
    narrow = sc.prune(Stack(), "neurons", ratio=0.5, example=VECTORS).model
    done = sc.prune(narrow, "layers", ratio=0.4, example=VECTORS).model
    sc.save(done, tmp_path / "both")
    assert torch.equal(sc.load(tmp_path / "both", Stack)(VECTORS), done(VECTORS))


def test_settings_that_mean_nothing_here_are_refused():
    for settings, text in (
        ({"ratio": 0.4, "round_to": 2}, "round_to=2 means nothing"),
        ({}, "how much"),
        ({"ratio": 0.4, "structures": ["layers", "neurons"]}, "a run of their own"),
    ):
        with pytest.raises(BadInput, match=text):
            sc.prune(Stack(), "layers", example=VECTORS, **settings)


def test_the_proof_finds_a_wrong_block():
    dense, keeps = Stack(), {"steps": torch.tensor([1, 2, 4])}
    assert verify_shortened(dense, shorten(dense, keeps), keeps, VECTORS).ok
    assert not verify_shortened(dense, by_hand(dense, [0, 2, 4]), keeps, VECTORS).ok
    assert not verify_shortened(dense, by_hand(dense, [1, 2]), keeps, VECTORS).ok


def ids(most):
    return {"input_ids": torch.randint(3, most, (2, 6), generator=torch.Generator().manual_seed(0))}


def gemma():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2,
                              num_key_value_heads=1, head_dim=8, sliding_window=3, use_cache=False,
                              layer_types=["sliding_attention", "full_attention"] * 2, pad_token_id=0)  # fmt: skip
    return Gemma3ForCausalLM(config).eval()


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2,
                         num_key_value_heads=1)  # fmt: skip
    return LlamaForCausalLM(config).eval()


def bart():
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    config = BartConfig(vocab_size=30, d_model=16, encoder_layers=3, decoder_layers=3, encoder_ffn_dim=24, decoder_ffn_dim=24,
                        encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=40)  # fmt: skip
    return BartForConditionalGeneration(config).eval()


def test_decoders_load_as_ordinary_folders(tmp_path):
    transformers = pytest.importorskip("transformers")
    dense = llama()
    done = sc.prune(dense, "layers", include=["model.layers.1"], example=ids(30))
    assert done.verification.ok and done.model.config.num_hidden_layers == 3
    sc.save(done.model, tmp_path / "hf", format="huggingface")
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf").eval()
    told = again.generate(ids(30)["input_ids"], max_new_tokens=4, do_sample=False)
    assert torch.equal(told, done.model.generate(ids(30)["input_ids"], max_new_tokens=4, do_sample=False))
    sc.save(done.model, tmp_path / "own")
    with torch.no_grad():
        assert torch.equal(sc.load(tmp_path / "own")(**ids(30)).logits, done.model(**ids(30)).logits)


def test_kinds_of_attention_by_layer_move_with_the_layers():
    pytest.importorskip("transformers")
    done = sc.prune(gemma(), "layers", include=["model.layers.0"], example=ids(30))
    assert done.model.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert done.verification.ok


def test_encoder_and_decoder_are_lists_of_their_own():
    pytest.importorskip("transformers")
    example = {**ids(30), "decoder_input_ids": ids(30)["input_ids"], "use_cache": False}
    done = sc.prune(bart(), "layers", include=["model.decoder.layers.2"], example=example)
    assert (done.model.config.encoder_layers, done.model.config.decoder_layers) == (3, 2)
    assert done.verification.ok
