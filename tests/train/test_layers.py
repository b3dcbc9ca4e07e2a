"""Every kind of layer under a mask: in training and evaluation, its fast paths, its copies, and what finish() leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc

WORDS = torch.tensor([[1, 2, 0], [3, 1, 4]])


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6, padding_idx=0)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(words)))


class Bidirectional(nn.Module):
    """Two stacked layers of two directions with a projection, and packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, num_layers=2, bidirectional=True, proj_size=3)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0])[0]


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class CrossAttention(nn.Module):
    """Keys and values of other widths, so that the three projections are parameters of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=5, vdim=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :5], x[..., :3])[0]


def sequence(layer: nn.Module) -> nn.Module:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            found = self.layer(x)
            return found[0] if isinstance(found, tuple) else found

    return First()


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2)


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4))


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "linear": (lambda: nn.Linear(6, 4), lambda: torch.randn(3, 6)),
    "conv": (convolutions, lambda: torch.randn(2, 3, 7, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), lambda: torch.randn(2, 3, 4, 4)),
    "padding-mode": (lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), lambda: torch.randn(2, 3, 6)),
    "embedding": (lambda: nn.Embedding(9, 6, padding_idx=0), lambda: WORDS),
    "bag": (lambda: nn.EmbeddingBag(9, 6), lambda: WORDS),
    "tied": (Tied, lambda: WORDS),
    "lstm": (lambda: sequence(nn.LSTM(5, 4, num_layers=2)), lambda: torch.randn(3, 2, 5)),
    "gru": (lambda: sequence(nn.GRU(5, 4, batch_first=True)), lambda: torch.randn(3, 2, 5)),
    "rnn": (lambda: sequence(nn.RNN(5, 4, bias=False)), lambda: torch.randn(3, 2, 5)),
    "cell": (lambda: sequence(nn.LSTMCell(5, 4)), lambda: torch.randn(3, 5)),
    "bidirectional": (Bidirectional, lambda: torch.randn(3, 2, 5)),
    "attention": (SelfAttention, lambda: torch.randn(2, 5, 8)),
    "cross-attention": (CrossAttention, lambda: torch.randn(5, 2, 8)),
    "encoder": (encoder, lambda: torch.randn(2, 5, 8)),
}  # fmt: skip

VARIANTS = ("keep", "overwrite", "straight-through")


def halved(model: nn.Module, variant: str = "keep") -> tuple[sc.Pruner, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    return sc.Pruner(model, "gmp", sparsity=0.5, schedule="one-shot", enforcement=variant).attach(optimizer), optimizer


def by_hand(model: nn.Module, pruner: sc.Pruner) -> nn.Module:
    """An untouched model whose weights are multiplied by the masks."""
    with torch.no_grad():
        for name, mask in pruner.masks.items():
            model.get_parameter(name).mul_(mask)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", LAYERS)
def test_forward_gradient_and_finish(name: str, variant: str) -> None:
    """As the model with zeros in it: outputs in both modes, gradients, and what is left in the end."""
    build, data = LAYERS[name]
    model, x = build(), data()
    untouched = copy.deepcopy(model)
    pruner, optimizer = halved(model, variant)
    twin = by_hand(copy.deepcopy(untouched), pruner)
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode)(x), twin.train(mode)(x))
    with torch.no_grad():  # where torch takes its fast paths
        torch.testing.assert_close(model(x), twin(x))
    model.train()(x).square().sum().backward()
    twin.train()(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        mask = pruner.masks.get(key, torch.tensor(True)) if variant == "keep" else True
        expected = twin.get_parameter(key).grad
        assert expected is not None
        torch.testing.assert_close(parameter.grad, expected * mask, msg=lambda text, key=key: f"{key}: {text}")
    optimizer.step()
    assert list(model.state_dict()) == list(untouched.state_dict())
    masked = model.eval()(x)
    assert pruner.finish() is model
    torch.testing.assert_close(model(x), masked, rtol=0, atol=0)
    assert [type(m) for m in model.modules()] == [type(m) for m in untouched.modules()]
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(x), masked, rtol=0, atol=0)


def test_the_fast_path_of_an_encoder_sees_the_masked_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = encoder(), torch.randn(2, 5, 8)
    pruner, _ = halved(model)
    calls, fast = [], torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or fast(*args))
    with torch.no_grad():
        masked = model.eval()(x)
        assert len(calls) == 2
        torch.testing.assert_close(pruner.finish()(x), masked, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["lstm", "gru", "bidirectional"])
def test_a_recurrent_layer_multiplies_once_a_forward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateurs.train.enforcement import MaskCell

    build, data = LAYERS[name]
    model, x = build(), data()
    pruner, _ = halved(model)
    seen, on = [], MaskCell.on
    monkeypatch.setattr(MaskCell, "on", lambda cell, device: seen.append(id(cell)) or on(cell, device))
    model(x)
    assert sorted(seen) == sorted(set(seen)) and len(seen) == len(pruner.masks)


def test_a_recurrent_layer_holds_no_tensor_between_forwards() -> None:
    model = nn.LSTM(5, 4)
    halved(model)
    plain = set(vars(nn.LSTM(5, 4)))
    with pytest.raises(RuntimeError, match=r"input\.size"):
        model(torch.randn(3, 2, 6))
    model(torch.randn(3, 2, 5))
    assert {key for key in vars(model) if key not in plain} == {"_secateurs_cells"}


def test_a_tied_weight_is_masked_once_and_in_both_places() -> None:
    model = Tied()
    pruner, _ = halved(model)
    assert list(pruner.masks) == ["embed.weight"] and pruner.masks.size == 54
    mask = pruner.masks["embed.weight"]
    assert torch.equal(model.embed.weight, model.embed.weight * mask) and torch.equal(model.head.weight, model.embed.weight)
    model(WORDS).square().sum().backward()
    gradient = dict(model.named_parameters())["embed.weight"].grad
    assert gradient is not None and (gradient[~mask] == 0).all() and (gradient[mask] != 0).any()
    pruner.finish()
    assert model.head.weight is model.embed.weight and int((model.head.weight == 0).sum()) == 27


def test_padding_stays_out_of_training_and_counts_as_pruned() -> None:
    model = nn.Embedding(9, 6, padding_idx=0)
    pruner, optimizer = halved(model)
    model(WORDS).sum().backward()
    optimizer.step()
    assert not pruner.masks["weight"][0].any(), "its zeros are the first to go"
    assert (dict(model.named_parameters())["weight"][0] == 0).all()
    assert int((~pruner.masks["weight"]).sum()) == 27


@pytest.mark.parametrize("name", LAYERS)
def test_a_copy_follows_the_masks_until_it_is_made_plain(name: str) -> None:
    """A deep copy, as moving averages make it, has parameters of its own and shows the masks of the moment."""
    build, data = LAYERS[name]
    model, x = build(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, schedule="one-shot", begin=1).attach(optimizer)
    twin = copy.deepcopy(model).eval()
    torch.testing.assert_close(twin(x), model.eval()(x))
    model.train()(x).sum().backward()
    optimizer.step()
    assert pruner.sparsity > 0.4
    before = {key: p.detach().clone() for key, p in twin.named_parameters()}
    masked = twin(x)
    assert pruner.apply_to(twin) is twin
    assert [(type(m).__name__, len(type(m).__mro__)) for m in twin.modules()] == [
        (type(m).__name__, len(type(m).__mro__)) for m in build().modules()
    ]
    torch.testing.assert_close(twin(x), masked, rtol=0, atol=0)
    for key, p in twin.named_parameters():
        assert torch.equal(p, before[key] * pruner.masks.get(key, torch.tensor(True)))
    assert not any(getattr(type(m), "_secateurs_masked", False) for m in twin.modules())
    assert any(getattr(type(m), "_secateurs_masked", False) for m in model.modules()), "the original goes on"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_may_change_its_dtype(variant: str, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, schedule="linear", end=2, every=1, enforcement=variant).attach(optimizer)
    model.to(dtype)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(3, 6, dtype=dtype)).sum().backward()
        optimizer.step()
    assert list(pruner.masks.kept().values()) == [15, 5]
    assert all(p.dtype == dtype for p in pruner.finish().parameters())


def test_recurrent_layers_may_change_their_dtype() -> None:
    model = nn.LSTM(5, 4)
    pruner, _ = halved(model)
    model.double()
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    masked = model(x)[0]
    torch.testing.assert_close(pruner.finish()(x)[0], masked, rtol=0, atol=0)
