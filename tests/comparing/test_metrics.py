"""The named metrics measure what the measure room measures, on a split, batch by batch."""

import pytest
import torch
from torch import nn

from secateurs.comparing.metrics import METRICS
from secateurs.comparing.running.data import Split
from secateurs.errors import BadInput
from secateurs.measure import accuracy, calibration_error, cross_entropy, perplexity, word_error_rate


class Scores:
    """A split of 600 examples with logits as inputs: more than two forward passes."""

    def __init__(self):
        torch.manual_seed(0)
        self.whole = (torch.randn(600, 8), torch.randint(8, (600,)))

    def batches(self, size):
        assert size < 600
        return zip(*(part.split(size) for part in self.whole), strict=True)


EXPECTED = {
    "top-1": accuracy,
    "top-5": lambda model, batches: accuracy(model, batches, top=5),
    "loss": cross_entropy,
    "perplexity": perplexity,
    "calibration-error": calibration_error,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_over_batches_as_over_the_whole(name):
    split = Scores()
    assert METRICS[name].measure(nn.Identity(), split) == pytest.approx(EXPECTED[name](nn.Identity(), [split.whole]), rel=1e-6)


def test_directions_and_units():
    assert all(name == metric.name for name, metric in METRICS.items())
    assert {n for n, m in METRICS.items() if m.direction == "higher"} == {"top-1", "top-5", "bleu"}
    assert {n for n, m in METRICS.items() if m.percent} == {"top-1", "top-5", "calibration-error", "word-error-rate"}
    assert {m.direction for m in METRICS.values()} == {"higher", "lower"}


def test_sentences_come_from_the_split():
    pytest.importorskip("jiwer")

    class Spoken(Scores):
        def __len__(self):
            return 1

        def batch(self, index):
            return self.whole

        def texts(self, model):
            assert not model.training and not torch.is_grad_enabled()
            return [model("a b")], ["a c"]

    for split in (Spoken(), Split(Spoken())):
        assert METRICS["word-error-rate"].measure(nn.Identity(), split) == word_error_rate(["a b"], ["a c"]) == 0.5
    with pytest.raises(BadInput, match=r"metric 'bleu' compares sentences: give the split a method texts\(model\)"):
        METRICS["bleu"].measure(nn.Identity(), Scores())
