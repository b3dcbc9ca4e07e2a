"""Encodings on visible bytes, and bit-identical return for every dtype and pattern."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.errors import CorruptFile
from secateurs.formats.encodings import ENCODINGS, Bitmask, encode, minus_zeros, nonzero_bits
from secateurs.formats.state import DTYPES

FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_floating_point]


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    )


def test_mask_bits_and_values_by_hand():
    tensor = torch.tensor([[0.0, 1.5, 0.0, -2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 3.0]])
    encoding, parts = encode("w", tensor, ["w"])
    assert encoding.name == "bitmask"
    assert parts[".mask"].tolist() == [0b00001010, 0b00000010]  # entries 1 and 3; entry 9
    assert parts[".values"].tolist() == [1.5, -2.0, 3.0]


def test_minus_zero_nan_and_infinity_are_values():
    tensor = torch.tensor([0.0, -0.0, float("nan"), float("-inf")] + [0.0] * 20)
    encoding, parts = encode("w", tensor, ["w"])
    assert parts[".mask"].tolist() == [0b1110, 0, 0]
    assert same_bits(encoding.decode(parts, tuple(tensor.shape), tensor.dtype), tensor)
    assert (nonzero_bits(tensor), minus_zeros(tensor)) == (3, 1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_minus_zeros_in_every_dtype(dtype):
    tensor = torch.tensor([0.0, -0.0, 1.0, -1.0]).to(dtype)
    assert (nonzero_bits(tensor), minus_zeros(tensor)) == (3, 1)


@pytest.mark.parametrize(("zeros", "bytes", "chosen"), [(0, 256, "dense"), (1, 256, "dense"), (2, 256, "dense"),
                                                        (3, 252, "bitmask"), (64, 8, "bitmask")])  # fmt: skip
def test_the_smaller_one_is_chosen_and_dense_when_equal(zeros, bytes, chosen):
    """64 entries of float32 take 256 bytes dense and 8 + 4 (64 - zeros) with a mask."""
    tensor = torch.ones(64)
    tensor[:zeros] = 0
    encoding, parts = encode("w", tensor, ["w"])
    assert (encoding.name, sum(part.nbytes for part in parts.values())) == (chosen, bytes)


@pytest.mark.parametrize("tensor", [torch.zeros(100, dtype=torch.int64), torch.zeros(100, dtype=torch.bool), torch.zeros(0, 3)])
def test_integers_and_empty_tensors_stay_dense(tensor):
    assert encode("w", tensor, ["w"])[0].name == "dense"


def test_a_taken_name_keeps_the_tensor_dense():
    assert encode("w", torch.zeros(100), ["w", "w.mask"])[0].name == "dense"
    assert encode("w", torch.zeros(100), ["w", "w.bias"])[0].name == "bitmask"


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(FLOATS))
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    n = int(np.prod(shape, dtype=int))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    bits = torch.randint(0, 256, (n * dtype.itemsize,), dtype=torch.uint8, generator=generator)  # any pattern, NaN payloads too
    keep = torch.rand(n, generator=generator) >= draw(st.sampled_from([0.0, 0.03, 0.5, 0.9, 1.0]))
    return (bits.view(n, dtype.itemsize) * keep[:, None]).reshape(-1).view(dtype).view(shape)


@given(tensors())
def test_every_tensor_returns_bit_for_bit_in_the_fewest_bytes(tensor):
    encoding, parts = encode("w", tensor, ["w"])
    assert same_bits(encoding.decode(parts, tuple(tensor.shape), tensor.dtype), tensor)
    n, size = tensor.numel(), tensor.dtype.itemsize
    assert sum(part.nbytes for part in parts.values()) == min(n * size, (n + 7) // 8 + nonzero_bits(tensor) * size)
    for other in ENCODINGS.values():
        if (own := other.encode(tensor)) is not None:
            assert same_bits(other.decode(own, tuple(tensor.shape), tensor.dtype), tensor)


def test_parts_that_do_not_fit_are_refused():
    tensor = torch.tensor([0.0, 1.0, 0.0, 2.0])
    parts = Bitmask().encode(tensor)
    with pytest.raises(CorruptFile, match="takes 2 bytes, found 1"):
        Bitmask().decode(parts, (3, 3), torch.float32)
    with pytest.raises(CorruptFile, match=r"its mask keeps 2 of torch.float16"):
        Bitmask().decode(parts, (4,), torch.float16)
    with pytest.raises(CorruptFile, match=r"found \(1,\) values"):
        Bitmask().decode({**parts, ".values": torch.ones(1)}, (4,), torch.float32)
    with pytest.raises(CorruptFile, match="bits set behind"):
        Bitmask().decode({**parts, ".mask": torch.tensor([0b11010], dtype=torch.uint8)}, (4,), torch.float32)
    with pytest.raises(CorruptFile, match=r"promised torch.float32 \(5,\)"):
        ENCODINGS["dense"].decode({"": tensor}, (5,), torch.float32)
