"""Adapters on six weights, by hand; merged and adapted outputs; exact starts; stacked matrices."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from secateurs.models import survey
from secateurs.train.retraining.adapters import ADAPTERS, Adapter, Masked

W = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
MASK = torch.tensor([[True, False, True], [False, True, True]])  # the last entry is live, and happens to be 0
A, B = torch.tensor([[[1.0, 2.0, 3.0]]]).double(), torch.tensor([[[1.0], [2.0]]]).double()  # BA = [[1, 2, 3], [2, 4, 6]]


def on(layer: nn.Module, name: str, mask: Tensor | None, rank: int = 1, alpha: float = 2.0, seed: int = 0) -> Adapter:
    return ADAPTERS[name](survey(layer).weights[0], mask, rank, alpha, 0.0, torch.Generator().manual_seed(seed))


def six(name: str) -> Adapter:
    """c = 2 on the six weights."""
    layer = nn.Linear(3, 2, bias=False).double()
    layer.weight.data.copy_(W)
    adapter = on(layer, name, MASK)
    adapter.a.data, adapter.b.data = A.clone(), B.clone()
    return adapter


@pytest.mark.parametrize(
    ("name", "trained", "merged"),
    [
        ("lora", [[3, 4, 8], [4, 11, 12]], [[3, 4, 8], [4, 11, 12]]),
        ("lora-prune", [[3, 4, 8], [4, 11, 12]], [[3, 0, 8], [0, 11, 12]]),
        ("mask-lora", [[3, 0, 8], [0, 11, 12]], [[3, 0, 8], [0, 11, 12]]),
        ("scale-lora", [[1, 0, 6], [0, 12, 0]], [[1, 0, 6], [0, 12, 0]]),
    ],
)
def test_six_weights_by_hand(name: str, trained: list[list[float]], merged: list[list[float]]) -> None:
    adapter = six(name)
    assert torch.allclose(adapter(W), torch.tensor(trained).double(), rtol=0, atol=1e-14)
    assert torch.allclose(adapter.merged(W), torch.tensor(merged).double(), rtol=0, atol=1e-14)


def test_a_lora_pruned_when_it_is_merged_loses_what_it_gave_through_masked_entries() -> None:
    adapter, x = six("lora-prune"), torch.tensor([1.0, -2.0, 0.5]).double()
    lost = 2 * ((B[0] @ A[0]) * ~MASK) @ x
    assert torch.allclose(adapter(W) @ x - adapter.merged(W) @ x, lost, rtol=0, atol=1e-13)
    assert lost.abs().min() > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rank", range(1, 18))
def test_scale_lora_begins_with_one_to_the_bit(rank: int, dtype: torch.dtype) -> None:
    layer = nn.Linear(37, 29).to(dtype)
    adapter = on(layer, "scale-lora", torch.rand(29, 37) < 0.5, rank)
    assert torch.all(adapter.product() == 1)
    assert torch.equal(adapter(layer.weight), layer.weight)
    assert torch.all(adapter.a == adapter.a[0, 0, 0]) and adapter.b[0, 0, 0].item() == pytest.approx(rank**-0.5)


def test_scale_lora_is_the_product_of_its_factors() -> None:
    layer = nn.Linear(7, 5).double()
    adapter = on(layer, "scale-lora", None, 3)
    adapter.a.data, adapter.b.data = torch.randn(1, 3, 7).double(), torch.randn(1, 5, 3).double()
    assert torch.allclose(adapter.product(), adapter.b[0] @ adapter.a[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["lora", "lora-prune", "mask-lora"])
def test_the_others_begin_with_the_weight_itself_and_as_lora_does(name: str) -> None:
    layer = nn.Linear(16, 5)
    adapter = on(layer, name, None, 4)
    assert torch.equal(adapter(layer.weight), layer.weight)
    assert torch.all(adapter.b == 0) and adapter.a.abs().max() <= 0.25 and adapter.a.std() > 0.1
    assert torch.equal(on(layer, name, None, 4).a, adapter.a) and not torch.equal(on(layer, name, None, 4, seed=1).a, adapter.a)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4),
    st.sampled_from(["mask-lora", "scale-lora", "lora-prune"]), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)  # fmt: skip
def test_merging_keeps_every_zero_and_exact_adapters_every_output(
    seed: int, rows: int, columns: int, rank: int, name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    layer, mask = nn.Linear(columns, rows, bias=False).to(dtype), torch.rand(rows, columns) < 0.5
    layer.weight.data.masked_fill_(~mask, 0)
    adapter = on(layer, name, mask, rank)
    adapter.a.data.normal_()
    adapter.b.data.normal_()
    merged = adapter.merged(layer.weight)
    assert torch.all(merged[~mask] == 0) and merged.dtype == dtype
    if adapter.exact:
        x = torch.randn(5, columns).to(dtype)
        assert torch.equal(x @ merged.T, x @ adapter(layer.weight).T)


def test_the_matrices_of_a_grouped_convolution_have_factors_each() -> None:
    layer = nn.Conv2d(4, 6, (3, 2), groups=2).double()
    adapter = on(layer, "lora", None, 2)
    adapter.b.data.normal_()
    assert adapter.a.shape == (2, 2, 12) and adapter.b.shape == (2, 3, 2)
    change = adapter(layer.weight) - layer.weight
    for group in range(2):
        wanted = (adapter.b[group] @ adapter.a[group]).view(3, 2, 3, 2)
        assert torch.allclose(change[3 * group : 3 * group + 3], wanted, rtol=0, atol=1e-12)


def test_a_layer_stored_the_other_way_round() -> None:
    layer = nn.ConvTranspose1d(4, 3, 1).double()  # [in, out, taps]
    adapter = on(layer, "lora", None, 2)
    adapter.b.data.normal_()
    assert adapter.a.shape == (1, 2, 4) and adapter.b.shape == (1, 3, 2)
    change = (adapter(layer.weight) - layer.weight)[:, :, 0]
    assert torch.allclose(change.T, adapter.b[0] @ adapter.a[0], rtol=0, atol=1e-12)


def test_what_trains_for_16_bit_weights_has_32() -> None:
    layer = nn.Linear(4, 4).bfloat16()
    assert {p.dtype for p in on(layer, "mask-lora", None).parameters()} == {torch.float32}
    assert {p.dtype for p in Masked(layer.bias, None).parameters()} == {torch.float32}


def test_autocast_does_not_narrow_the_factors() -> None:
    adapter = six("mask-lora")
    adapter.a.data = A.float() / 3
    adapter.b.data = B.float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = adapter(W.float())
    assert torch.equal(inside, adapter(W.float())) and inside.dtype == torch.float32
