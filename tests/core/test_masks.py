"""Masks: counts, reports, bits."""

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.masks import Masks, Packed, pack_bits, unpack_bits
from secateurs.errors import BadInput, CorruptFile


def two():
    return Masks({"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([True, True, False, True, True, True])})


def test_bits_are_row_major_and_the_lowest_comes_first():
    mask = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.bool)
    assert pack_bits(mask).tolist() == [0b10000001, 0b00000011]
    assert pack_bits(mask.T.contiguous().T).tolist() == [0b10000001, 0b00000011]  # whatever the memory looks like


@given(st.lists(st.booleans(), max_size=40))
def test_packing_is_undone(bits):
    mask = torch.tensor(bits, dtype=torch.bool)
    packed = pack_bits(mask)
    assert packed.numel() == (len(bits) + 7) // 8
    assert torch.equal(unpack_bits(packed, (len(bits),)), mask)


def test_a_scalar_and_an_empty_mask_pack():
    assert unpack_bits(pack_bits(torch.tensor(True)), ()).item() is True
    assert unpack_bits(pack_bits(torch.ones(0, 3, dtype=torch.bool)), (0, 3)).shape == (0, 3)


def test_bytes_that_do_not_fit_are_refused():
    with pytest.raises(CorruptFile, match=r"shape \(9,\) takes 2 bytes, found 1"):
        unpack_bits(torch.zeros(1, dtype=torch.uint8), (9,))
    with pytest.raises(CorruptFile, match=r"found 2 of torch\.int8"):
        unpack_bits(torch.zeros(2, dtype=torch.int8), (9,))
    with pytest.raises(CorruptFile, match="bits set behind its last entry"):
        unpack_bits(torch.tensor([0b00001000], dtype=torch.uint8), (3,))


def test_counts_and_report():
    masks = two()
    assert masks.kept() == {"a": 1, "b": 5}
    assert (masks.size, masks.sparsity, list(masks)) == (10, 0.4, ["a", "b"])
    assert masks.report() == [
        {"name": "a", "shape": [2, 2], "size": 4, "kept": 1, "removed": 3, "sparsity": 0.75},
        {"name": "b", "shape": [6], "size": 6, "kept": 5, "removed": 1, "sparsity": 1 / 6},
        {"name": "total", "shape": None, "size": 10, "kept": 6, "removed": 4, "sparsity": 0.4},
    ]
    assert Masks({}).sparsity == 0.0


def test_state_dict_takes_a_bit_an_entry_and_loads_without_pickled_code():
    masks = two()
    buffer = io.BytesIO()
    torch.save(masks.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert sum(entry["bits"].numel() for entry in state.values()) == 2
    again = Masks.from_state_dict(state)
    assert list(again) == ["a", "b"] and all(torch.equal(again[name], masks[name]) for name in masks)


def test_a_mask_is_boolean():
    with pytest.raises(BadInput, match=r"the mask of 'w' has dtype torch\.float32"):
        Masks({"w": torch.ones(2)})


def test_packed_masks_are_the_same_masks():
    plain = Masks({"a": torch.rand(3, 5) > 0.5, "b": torch.rand(17) > 0.2})
    packed = Packed({name: pack_bits(mask) for name, mask in plain.items()}, {"a": (3, 5), "b": (17,)})
    assert list(packed) == ["a", "b"] and len(packed) == 2 and "a" in packed and "c" not in packed
    assert all(torch.equal(packed[name], plain[name]) and packed.shape(name) == plain.shape(name) for name in plain)
    assert packed.kept() == plain.kept() and packed.report() == plain.report() and packed.size == 32
    assert list(packed.only(["b"])) == ["b"] and packed.sparsity == plain.sparsity
    again = Masks.from_state_dict(packed.state_dict())
    assert all(torch.equal(again[name], plain[name]) for name in plain)
