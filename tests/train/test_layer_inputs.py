"""What layers read: rows, products, padding, and what cannot be read."""

import pytest
import torch
from torch import nn

from secateurs.models import survey
from secateurs.train.layer_inputs import Rows, calls_of, gram_matrices, layers_read, tokens_in, unread

torch.manual_seed(0)


def weight_of(module):
    return survey(nn.Sequential(module)).weights[0]


def test_the_rows_of_a_linear_layer_are_its_tokens():
    x = torch.arange(12.0).view(2, 2, 3)
    assert torch.equal(Rows(weight_of(nn.Linear(3, 1)), 64, 0)(x)[0], x.view(4, 3))


def test_the_rows_of_a_convolution_give_its_outputs():
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False).double()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    rows = Rows(weight_of(conv), 64, 0)(x)
    assert [tuple(r.shape) for r in rows] == [(18, 18)] * 2
    ours = torch.cat([r @ w.flatten(1).T for r, w in zip(rows, conv.weight.detach().chunk(2), strict=True)], dim=1)
    assert torch.allclose(ours.view(2, 3, 3, 6).permute(0, 3, 1, 2), conv(x))


def test_a_sample_of_places_is_the_same_every_time():
    conv = weight_of(nn.Conv2d(1, 1, 1))
    x = torch.arange(2 * 36.0).view(2, 1, 6, 6)
    few = Rows(conv, 5, 3)(x)[0].view(2, 5)
    assert torch.equal(few, Rows(conv, 5, 3)(x)[0].view(2, 5))
    assert torch.equal(few[1], few[0] + 36) and len(few[0].unique()) == 5
    assert not torch.equal(few, Rows(conv, 5, 4)(x)[0].view(2, 5))


def test_products_by_hand_and_shared_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(2, 1)

        def forward(self, x):
            return self.a(x).sum() + self.b(x)

    model = Two().train()
    batches = [torch.tensor([[1.0, 2]]), torch.tensor([[3.0, 0]])]
    found = gram_matrices(model, layers_read(model), batches)
    assert found["a.weight"].tolist() == found["b.weight"].tolist() == [[[10, 2], [2, 4]]]
    assert found["a.weight"].dtype == torch.float64 and model.training
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_padding_is_left_out():
    model = nn.Sequential(nn.Linear(1, 1))
    tokens = tokens_in(model, {"attention_mask": torch.tensor([[1, 1, 0]])})
    x = torch.tensor([[[1.0], [2.0], [9.0]]])
    assert Rows(survey(model).weights[0], 64, 0)(x, tokens)[0].tolist() == [[1], [2]]


@pytest.mark.parametrize(("module", "why"), [
    (nn.Embedding(4, 2), "an embedding is looked up"),
    (nn.LSTM(2, 3), "a recurrent layer computes inside torch"),
    (nn.ConvTranspose2d(2, 3, 3), "transposed convolution"),
    (nn.MultiheadAttention(4, 2), "multiplies inside torch"),
])  # fmt: skip
def test_what_cannot_be_read_has_a_reason(module, why):
    assert why in unread(weight_of(module))
    assert layers_read(nn.Sequential(module)) == {}


def test_a_weight_that_two_layers_share_is_not_one_layers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert unread(survey(model).weights[0]) == "several layers share it"


def test_calls_are_counted():
    inner = nn.Linear(1, 1)
    model = nn.Sequential(inner, nn.ReLU(), inner, nn.Identity())
    found = calls_of(model, lambda: model[:3](torch.ones(1, 1)))
    assert {name: found[name] for name in ("0", "1", "3")} == {"0": 2, "1": 1, "3": 0}
