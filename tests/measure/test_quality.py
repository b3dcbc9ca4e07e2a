"""Accuracy, loss, perplexity and calibration by hand and by known libraries, uneven batches and ignored targets included."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.measure import accuracy, calibration_error, cross_entropy, perplexity


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


@pytest.mark.parametrize("metric", [accuracy, cross_entropy, perplexity, calibration_error])
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


@pytest.mark.parametrize("top", [1, 2, 5])
def test_top_k_is_that_of_scikit_learn(top):
    metrics = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(0)
    scores, targets = torch.randn(200, 10), torch.randint(10, (200,))
    expected = metrics.top_k_accuracy_score(targets.numpy(), scores.numpy(), k=top, labels=range(10))
    batches = zip(scores.split(64), targets.split(64), strict=True)
    assert accuracy(Fixed(), batches, top=top) == pytest.approx(expected, abs=1e-12)


def test_ties_and_nan_earn_nothing():
    same, everyone = torch.zeros(10, 10), torch.arange(10)
    assert accuracy(Fixed(), [(same, everyone)]) == 1 / 10
    assert accuracy(Fixed(), [(same, everyone)], top=5) == 5 / 10
    assert accuracy(Fixed(), [(same / 0, everyone)], top=5) == 0
    assert accuracy(Fixed(), [(torch.tensor([[math.nan, 1, 0]] * 3), torch.arange(3))], top=2) == 1 / 3


@pytest.mark.parametrize("top", [0, 3, 1.0, True])
def test_top_that_says_nothing(top):
    with pytest.raises(BadInput, match=f"top={top!r} of 3 classes"):
        accuracy(Fixed(), [(torch.eye(3), torch.arange(3))], top=top)


def test_targets_outside_the_classes():
    with pytest.raises(BadInput, match=r"targets lie between 0 and 3, the logits have 3 classes"):
        accuracy(Fixed(), [(torch.eye(3), torch.tensor([0, 1, 3]))])


def test_cross_entropy_is_torchs_own_over_all_targets():
    torch.manual_seed(0)
    scores, targets = torch.randn(50, 7), torch.randint(7, (50,))
    expected = float(nn.functional.cross_entropy(scores, targets))
    batches = list(zip(scores.split(16), targets.split(16), strict=True))
    assert cross_entropy(Fixed(), batches) == pytest.approx(expected, rel=1e-6)
    assert perplexity(Fixed(), batches) == pytest.approx(math.exp(expected), rel=1e-6)


def test_calibration_error_by_hand():
    """Confidences 0.9 (right, right, wrong) and 0.6 (wrong): 3/4 |2/3 - 0.9| + 1/4 |0 - 0.6|."""
    batch = (logits([0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.6, 0.4]), torch.tensor([0, 1, 1, 1]))
    assert calibration_error(Fixed(), [batch]) == pytest.approx(3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.6)


def test_calibration_error_is_that_of_torchmetrics():
    classification = pytest.importorskip("torchmetrics.classification")
    torch.manual_seed(0)
    scores, targets = 2 * torch.randn(300, 6), torch.randint(6, (300,))
    theirs = classification.MulticlassCalibrationError(6, n_bins=15, norm="l1")(scores, targets)
    found = calibration_error(Fixed(), zip(scores.split(128), targets.split(128), strict=True))
    assert found == pytest.approx(float(theirs), rel=1e-5) and 0 < found < 1


def test_calibration_error_at_its_ends():
    certain = 1e4 * torch.eye(4)
    assert calibration_error(Fixed(), [(certain, torch.arange(4))]) == 0
    assert calibration_error(Fixed(), [(certain, torch.arange(4).roll(1))]) == 1
    with pytest.raises(BadInput, match="bins=0"):
        calibration_error(Fixed(), [(certain, torch.arange(4))], bins=0)
