"""Running statistics measured anew: averages by hand, and nothing else touched."""

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.train.reestimate import reestimate


def norm(**more):
    """A batch norm of one channel with old statistics 7 and 9."""
    layer = nn.BatchNorm1d(1, **more)
    layer.running_mean.fill_(7.0)
    layer.running_var.fill_(9.0)
    return layer


def column(*values):
    return torch.tensor(values)[:, None]


BATCHES = [column(0.0, 2.0), column(10.0, 14.0), column(5.0, 5.0)]  # means 1, 12, 5; unbiased variances 2, 8, 0


def test_the_statistics_are_the_averages_of_the_batches():
    model = nn.Sequential(norm())
    assert reestimate(model, BATCHES) == 3
    torch.testing.assert_close(model[0].running_mean, torch.tensor([6.0]))
    torch.testing.assert_close(model[0].running_var, torch.tensor([10.0 / 3]))
    assert model[0].num_batches_tracked == 3


def test_exactly_so_many_batches():
    model, taken = nn.Sequential(norm()), []

    def batches():
        for batch in BATCHES:
            taken.append(batch)
            yield batch

    assert reestimate(model, batches(), count=2) == 2
    assert len(taken) == 2 and model[0].num_batches_tracked == 2
    torch.testing.assert_close(model[0].running_mean, torch.tensor([6.5]))


def test_only_the_statistics_change():
    """Momentum, weights and training flags stay; the frozen norm is measured and stays in evaluation mode."""
    model = nn.Sequential(norm(momentum=0.3), nn.Dropout(0.9), nn.Linear(1, 2), nn.BatchNorm1d(2), nn.ReLU())
    model.train()
    model[3].eval()
    weights = {name: value.clone() for name, value in model.named_parameters()}
    reestimate(model, BATCHES)
    assert [module.training for module in model] == [True, True, True, False, True] and model.training
    assert model[0].momentum == 0.3 and model[3].num_batches_tracked == 3
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_is_off():
    """Twice the same statistics behind a dropout of nine tenths."""
    model = nn.Sequential(nn.Dropout(0.9), norm())
    model.train()
    reestimate(model, BATCHES)
    torch.testing.assert_close(model[1].running_mean, torch.tensor([6.0]))


def test_a_second_norm_sees_what_the_first_makes_of_the_batch():
    model = nn.Sequential(norm(affine=False), norm(affine=False))
    reestimate(model, BATCHES[:2])
    torch.testing.assert_close(model[1].running_mean, torch.tensor([0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(model[1].running_var, torch.tensor([2.0]), atol=1e-4, rtol=0)


def test_it_repairs_a_network_whose_input_moved():
    """A shift of the input is undone by the statistics alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    images = torch.randn(64, 3, 6, 6)
    reestimate(model, [images])
    with torch.no_grad():
        before = model.eval()(images)
        model[0].bias += 5
        assert not torch.allclose(model(images), before)
        reestimate(model, [images])
        torch.testing.assert_close(model(images), before)


def test_noise_keeps_the_old_statistics():
    model = nn.Sequential(norm())
    assert reestimate(model, BATCHES, source="noise") == 0
    assert model[0].running_mean == 7 and model[0].running_var == 9


def test_a_model_without_statistics_is_left_alone():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, track_running_stats=False))
    assert reestimate(model, BATCHES) == 0


def test_instance_norms_that_track_are_measured():
    model = nn.Sequential(nn.InstanceNorm1d(1, track_running_stats=True))
    reestimate(model, [torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[10.0, 14.0]]])])
    torch.testing.assert_close(model[0].running_mean, torch.tensor([6.5]))


def test_pairs_and_mappings_are_called_as_they_are_meant():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm()

        def forward(self, pixels):
            return self.norm(pixels)

    for batch in ((BATCHES[0], torch.tensor([0, 1])), {"pixels": BATCHES[0]}):
        model = Named()
        reestimate(model, [batch])
        assert model.norm.running_mean == 1
    model = Named()
    reestimate(model, [(0, BATCHES[1])], forward=lambda module, batch: module(batch[1]))
    assert model.norm.running_mean == 12


@pytest.mark.parametrize("batches, settings", [
    ([], {}), (BATCHES, {"count": 4}), (BATCHES, {"count": 0}), (BATCHES, {"source": "guess"}),
    ([BATCHES[0], torch.zeros(2, 3)], {}),  # the second does not fit
])  # fmt: skip
def test_after_an_error_the_old_statistics_are_back(batches, settings):
    model = nn.Sequential(norm())
    model.train()
    with pytest.raises((BadInput, RuntimeError, ValueError)):
        reestimate(model, iter(batches), **settings)
    assert model[0].running_mean == 7 and model[0].running_var == 9 and model[0].num_batches_tracked == 0
    assert model[0].momentum == 0.1 and model[0].training
