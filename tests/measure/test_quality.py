"""Accuracy, perplexity and BLEU against values found by hand, uneven batches and ignored targets included."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.measure import accuracy, bleu, bleu_signature, perplexity


class Fixed(nn.Module):
    """Returns the logits it is given."""

    def forward(self, x):
        assert not self.training and not torch.is_grad_enabled()
        return x


def logits(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_accuracy_over_uneven_batches():
    batches = [(torch.eye(3), torch.tensor([0, 1, 0])), (torch.eye(3)[:1], torch.tensor([0]))]
    assert accuracy(Fixed(), batches) == 3 / 4


def test_accuracy_skips_ignored_targets():
    assert accuracy(Fixed(), [(torch.eye(3), torch.tensor([0, -100, 0]))]) == 1 / 2


def test_perplexity_weighs_tokens_not_batches():
    batches = [
        (logits([0.5, 0.5], [0.25, 0.75], [0.5, 0.5]), torch.tensor([0, 0, 1])),
        (logits([0.125, 0.875]), torch.tensor([0])),
    ]
    nats = -(math.log(0.5) * 2 + math.log(0.25) + math.log(0.125))
    assert perplexity(Fixed(), batches) == pytest.approx(math.exp(nats / 4), rel=1e-6)


def test_perplexity_of_a_uniform_model_is_the_vocabulary():
    batch = (torch.zeros(2, 5, 7), torch.randint(7, (2, 5)))
    assert perplexity(Fixed(), [batch]) == pytest.approx(7)


def test_perplexity_skips_ignored_targets_and_overflows_to_infinity():
    row = logits([0.25, 0.75])
    assert perplexity(Fixed(), [(row.repeat(2, 1), torch.tensor([0, -100]))]) == pytest.approx(4)
    assert perplexity(Fixed(), [(torch.tensor([[0.0, 5000.0]]), torch.tensor([0]))]) == math.inf


def test_mapping_batches_are_shifted_for_perplexity():
    class Causal(nn.Module):
        def forward(self, input_ids, labels):
            return SimpleNamespace(logits=torch.eye(4)[(input_ids + 1) % 4] * 1e4)  # certain that the next is one more

    ids = torch.tensor([[0, 1, 2, 3]])
    assert perplexity(Causal(), [{"input_ids": ids, "labels": ids}]) == pytest.approx(1)


def test_tuples_and_own_predictions():
    class Stateful(nn.Module):
        def forward(self, x):
            return x, "state"

    assert accuracy(Stateful(), [(torch.eye(2), torch.tensor([0, 1]))]) == 1
    predict = lambda model, batch: (model(batch["x"])[0], batch["y"])  # noqa: E731
    assert accuracy(Stateful(), [{"x": torch.eye(2), "y": torch.tensor([0, 0])}], predict) == 1 / 2


def test_mode_is_restored_after_a_failure_too():
    model = Fixed().train()
    with pytest.raises(BadInput, match=r"logits \(2, 2\) do not fit targets \(3,\)"):
        accuracy(model, [(torch.eye(2), torch.tensor([0, 1, 1]))])
    assert model.training and torch.is_grad_enabled()


@pytest.mark.parametrize("metric", [accuracy, perplexity])
def test_nothing_to_count(metric):
    with pytest.raises(BadInput, match="used up"):
        metric(Fixed(), iter([]))
    with pytest.raises(BadInput, match="used up"):
        metric(Fixed(), [(torch.eye(2), torch.tensor([-100, -100]))])


def test_unknown_output():
    class Odd(nn.Module):
        def forward(self, x):
            return "text"

    with pytest.raises(BadInput, match="returned str: pass predict="):
        accuracy(Odd(), [(torch.eye(2), torch.tensor([0, 1]))])


def test_bleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    lines, other = (
        ["the cat sat on the mat .", "a dog barks at night ."],
        ["a cat sat on the mat .", "the dog barks at night ."],
    )
    assert bleu(lines, lines) == pytest.approx(100)
    assert bleu(lines, other) == pytest.approx(sacrebleu.corpus_bleu(lines, [other]).score)
    assert 0 < bleu(lines, other) < 100
    assert bleu(lines, [other, lines]) == pytest.approx(100)  # two reference sets
    assert "tok:13a" in bleu_signature()
    with pytest.raises(BadInput, match="2 hypotheses against"):
        bleu(lines, lines[:1])
