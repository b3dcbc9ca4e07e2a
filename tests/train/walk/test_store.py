"""Activations in memory up to a budget, and on disk beyond it."""

import pytest
import torch

from secateurs.errors import BadInput
from secateurs.train.walk.store import Store, is_hollow


def test_what_goes_beyond_the_budget_lies_on_disk_and_comes_back(tmp_path):
    x, y = torch.randn(4, 4), torch.randn(4, 4).bfloat16()
    with Store(100, tmp_path) as store:
        store.put("a", (x, {"y": y, "n": 3}, None))  # 64 + 32 bytes
        assert store.bytes == 96 and not list(tmp_path.iterdir())
        store.put("b", [x, x, x.T])
        assert store.bytes == 96 and store.spilled == 64
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 1
        first, second = store.get("a"), store.get("b")
        assert torch.equal(first[0], x) and torch.equal(first[1]["y"], y) and first[1]["n"] == 3 and first[2] is None
        assert all(map(torch.equal, second, [x, x, x.T]))
        store.drop("b")
        assert not list(folder.iterdir())
    assert not list(tmp_path.iterdir())


def test_files_are_removed_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), Store(0, tmp_path) as store:
        store.put(1, torch.ones(3))
        assert list(tmp_path.iterdir())
        1 / 0
    assert not list(tmp_path.iterdir())


def test_what_is_given_out_may_be_written_to():
    with Store() as store:
        store.put(1, torch.ones(3))
        store.get(1).zero_()
        assert store.get(1).tolist() == [1, 1, 1]


def test_a_slice_does_not_keep_the_whole_alive():
    with Store() as store:
        store.put(1, torch.ones(1000)[:2])
        assert store.bytes == 8


def test_hollow_values_keep_their_shape_alone(tmp_path):
    with Store(10, tmp_path) as store:
        for key, value in (("small", torch.ones(2)), ("large", (torch.ones(3, 4), None))):
            store.put(key, value)
            store.hollow_out(key)
        assert store.bytes == 0 and is_hollow(store.get("large")) and not is_hollow((torch.ones(1), 2))
        assert store.get("large")[0].shape == (3, 4)
        (folder,) = tmp_path.iterdir()
        assert not list(folder.iterdir())


def test_bad_input(tmp_path):
    with pytest.raises(BadInput, match="-1 bytes"):
        Store(-1)
    with pytest.raises(BadInput, match="is no folder"):
        Store(0, tmp_path / "none")
