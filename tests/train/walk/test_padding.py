"""Padding is kept out of the statistics, on whichever side it lies, in encoders, decoders and experts."""

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.models import select, survey
from secateurs.train.walk import walk
from secateurs.train.walk.padding import Tokens, tokens_of
from tests.models.families import family

pytest.importorskip("transformers")


def measured(model, given):
    """By weight, for every part: tokens, sequences and the Gram matrix; nothing is pruned."""
    found = {}

    def visit(block):
        found.update({name: [(one.tokens, one.sequences, one.gram) for one in inputs["gram"]]
                      for name, inputs in block.statistics.items()})  # fmt: skip

    walk(model, survey(model), given, ["gram"], visit, dtype=torch.float64)
    return found


def padded(sequences, side, length=6):
    """One batch of sequences of unequal lengths, with its mask."""
    ids, mask = torch.zeros(len(sequences), length, dtype=torch.long), torch.zeros(len(sequences), length, dtype=torch.long)
    for i, sequence in enumerate(sequences):
        place = slice(0, len(sequence)) if side == "right" else slice(length - len(sequence), length)
        ids[i, place], mask[i, place] = sequence, 1
    return ids, mask


SEQUENCES = [torch.tensor([5, 9, 4, 7, 30, 8]), torch.tensor([11, 3, 40]), torch.tensor([6, 21, 17, 5])]


def agree(found, expected):
    assert found.keys() == expected.keys() and len(found) > 4
    for name, parts in expected.items():
        for (tokens, sequences, gram), (n, s, g) in zip(found[name], parts, strict=True):
            assert (tokens, sequences) == (n, s), name
            torch.testing.assert_close(gram, g, rtol=1e-5, atol=1e-6)  # rotary tables are float32


CASES = [(name, side) for name in ("llama", "mixtral", "llama4") for side in ("right", "left")] + [("bloom", "right")]


@pytest.mark.parametrize(("name", "side"), CASES)
def test_a_padded_batch_counts_as_its_sequences_alone(name, side):
    ids, mask = padded(SEQUENCES, side)
    model = family(name)
    alone = measured(model, [{"input_ids": s[None]} for s in SEQUENCES])
    agree(measured(model, [{"input_ids": ids, "attention_mask": mask}]), alone)


def test_layers_that_see_flat_tokens_know_their_padding():
    ids, mask = padded(SEQUENCES, "right")
    model = family("opt")  # its positions follow the mask; its feed-forward layers may flatten the tokens
    alone = measured(model, [{"input_ids": s[None], "attention_mask": torch.ones_like(s)[None]} for s in SEQUENCES])
    agree(measured(model, [{"input_ids": ids, "attention_mask": mask}]), alone)


@pytest.mark.parametrize("given", ["mask", "labels"])
def test_encoder_and_decoder_have_a_padding_of_their_own(given):
    targets = [torch.tensor([4, 5, 6]), torch.tensor([7]), torch.tensor([8, 9])]
    ids, mask = padded(SEQUENCES, "right")
    model = family("t5")
    alone = measured(model, [{"input_ids": s[None], "labels": t[None]} for s, t in zip(SEQUENCES, targets, strict=True)])
    labels, real = padded(targets, "right", 3)
    batch = {"input_ids": ids, "attention_mask": mask}
    if given == "labels":
        batch["labels"] = labels.masked_fill(real == 0, -100)
    else:
        start = torch.zeros(3, 1, dtype=torch.long)
        batch |= {"decoder_input_ids": torch.cat([start, labels[:, :-1]], 1), "decoder_attention_mask": real}
    agree(measured(model, [batch]), alone)


def test_a_decoder_as_long_as_its_encoder_is_not_mistaken_for_it():
    sources = [torch.tensor([4, 5, 6]), torch.tensor([7, 3])]
    targets = [torch.tensor([8]), torch.tensor([9, 10, 11])]
    ids, mask = padded(sources, "right", 3)
    labels, real = padded(targets, "right", 3)
    model = family("t5")
    alone = measured(model, [{"input_ids": s[None], "labels": t[None]} for s, t in zip(sources, targets, strict=True)])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels.masked_fill(real == 0, -100)}
    agree(measured(model, [batch]), alone)


class Shuffled(nn.Module):
    """Its layer sees the tokens in another order, which nobody can know."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Flatten(0, 1), Pairs()) for _ in range(2)])

    def forward(self, x, attention_mask):
        for layer in self.layers:
            x = layer(x)
        return x


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(torch.cat([x, x])).reshape(2, -1, 2)[:, :3]


def test_padding_that_cannot_be_told_is_refused():
    model, x, mask = Shuffled(), torch.randn(2, 3, 2), torch.ones(2, 3)
    walk(model, survey(model), [{"x": x, "attention_mask": mask}], ["norms"], lambda block: None)
    mask[0, 0] = 0
    with pytest.raises(BadInput, match=r"'layers\.0\.1\.layer\.weight' gets an input of shape \(12, 2\)"):
        walk(model, survey(model), [{"x": x, "attention_mask": mask}], ["norms"], lambda block: None)


def test_experts_with_an_order_of_their_own_refuse_padding():
    import transformers

    config = transformers.JetMoeConfig(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                       num_key_value_heads=2, kv_channels=8, num_local_experts=4, pad_token_id=0)  # fmt: skip
    model = transformers.JetMoeForCausalLM(config)
    ids, mask = padded(SEQUENCES, "right")
    chosen = select(survey(model), types=["experts"])
    walk(model, chosen, [{"input_ids": ids}], ["norms"], lambda block: None)
    with pytest.raises(BadInput, match="without padding"):
        walk(model, chosen, [{"input_ids": ids, "attention_mask": mask}], ["norms"], lambda block: None)


def test_a_mask_of_another_shape_belongs_elsewhere():
    hidden = torch.ones(2, 5, 4)
    batch = {"attention_mask": torch.tensor([[1, 0, 0], [1, 1, 1]])}
    assert tokens_of(batch, lambda hidden: None, (hidden,), {}) == Tokens(sequences=2)
    assert tokens_of(batch, lambda hidden: None, (hidden[:, :3],), {}).own.sum() == 4
    assert tokens_of(batch["attention_mask"], lambda hidden: None, (hidden,), {}) == Tokens(sequences=2)


def test_tokens_that_lie_the_other_way_round_are_known():
    mask = torch.tensor([[True, False, False], [True, True, True]])
    found = Tokens(mask, sequences=2).mask(torch.ones(3, 2, 4), "layer")
    assert found.tolist() == [True, True, False, True, False, True]
