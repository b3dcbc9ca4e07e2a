"""Splits of every form give the same batches, in an order that is a pure function; test data that is training data is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from secateurs.comparing.running.data import Split, shares_examples, wrap
from secateurs.comparing.running.randomness import batch_at, mixed, own_randomness, seed_all, step_seed
from secateurs.errors import BadInput

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10)


class ByIndex:
    def __len__(self) -> int:
        return 10

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return X[index], Y[index]


FORMS = {"tuple": (X, Y), "list": [X, Y], "dataset": TensorDataset(X, Y), "by index": ByIndex(),
         "pairs": list(zip(X, Y, strict=True))}  # fmt: skip


@pytest.mark.parametrize("source", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_batches(source: Any) -> None:
    split = Split(source)
    assert len(split) == 10
    for at, (x, y) in enumerate(split.batches(4)):
        assert torch.equal(x, X[4 * at : 4 * at + 4]) and torch.equal(y, Y[4 * at : 4 * at + 4])
    assert at == 2 and len(y) == 2
    x, y = split.batch(torch.tensor([7, 2]))
    assert torch.equal(x, X[[7, 2]]) and y.tolist() == [7, 2]


def test_what_is_no_split_passes_through_and_what_is_broken_does_not() -> None:
    arrays = {"train": {"ids": np.arange(3)}, "test": np.arange(3)}
    assert wrap(arrays, "t") == arrays
    for wrong, says in [
        ([X], "returned a list; it must return a mapping"),
        ({"train": (X, Y)}, "has no 'test', only 'train'"),
        ({"train": (X, Y[:9]), "test": (X, Y)}, r"data\['train'\] has tensors of different lengths: 10, 9"),
        ({"train": (X, Y), "test": (X[:0], Y[:0])}, r"data\['test'\] has no examples"),
    ]:
        with pytest.raises(BadInput, match=f"task 't': .*{says}"):
            wrap(wrong, "t")


def test_an_epoch_is_a_permutation_without_what_does_not_fill_a_batch() -> None:
    first = torch.cat([batch_at(10, 3, seed=5, step=step) for step in range(3)])
    second = torch.cat([batch_at(10, 3, seed=5, step=step) for step in range(3, 6)])
    assert len(set(first.tolist())) == len(set(second.tolist())) == 9 and not torch.equal(first, second)
    assert torch.equal(batch_at(10, 3, 5, 4), second[3:6])  # whatever was asked before
    assert not torch.equal(batch_at(10, 3, 6, 0), first[:3])
    with pytest.raises(BadInput, match="has 10 examples, which do not fill one batch of 11"):
        batch_at(10, 11, 0, 0)


def test_seeds_differ_by_step_and_purpose_and_the_callers_randomness_comes_back() -> None:
    assert len({mixed(s, t, *p) for s in range(3) for t in range(3) for p in ((), (1,), (2,))}) == 27
    torch.manual_seed(1)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    with own_randomness():
        seed_all(7)
        drawn = torch.rand(2)
        assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(7)))
        np.random.rand(5)
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numbers).all()


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**40])
def test_the_quick_way_to_a_steps_seed_is_the_same_seed(seed):
    for step in (0, 1, 1023, 1024, 99_999, 2**32 - 1):
        assert step_seed(seed, step) == mixed(seed, step)


def far(n: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=draw), torch.randint(0, 2, (n,), generator=draw)


def test_test_data_that_is_training_data_is_found() -> None:
    x, y = far(5000, 1)
    train = Split((x, y))
    assert shares_examples(train, train) and shares_examples(train, Split((x, y)))
    assert shares_examples(train, Split((x[300:900].clone(), y[300:900].clone())))  # a copied part of it
    assert shares_examples(Split(TensorDataset(x, y)), Split(TensorDataset(x.clone(), y.clone())))
    assert not shares_examples(train, Split(far(1000, 2)))
    assert not shares_examples(train, Split((x[:900], 1 - y[:900])))  # other labels are other examples
    assert not shares_examples(Split(TensorDataset(x, y)), Split(TensorDataset(*far(5000, 2))))
    half = torch.cat([x[:40], far(60, 3)[0]]), torch.cat([y[:40], far(60, 3)[1]])
    assert not shares_examples(train, Split(half))  # a few doubles are not training data
