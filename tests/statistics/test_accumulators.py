"""Sums that merge: one batch equals many, shards add up, padding and order change nothing."""

import pytest
import torch

from secateurs.errors import BadInput
from secateurs.statistics import ACCUMULATORS, Accumulator, Gram, Moments, Norms

X = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 2.0], [-3.0, 1.0]]])  # two sequences of two tokens
KINDS = pytest.mark.parametrize("kind", ACCUMULATORS.values(), ids=lambda kind: kind.name)


def made(kind, *batches, dtype=torch.float64, **options):
    one = kind(batches[0].shape[-1], dtype)
    for batch in batches:
        one.update(batch, **options)
    return one


def same(a, b):
    assert (a.tokens, a.sequences) == (b.tokens, b.sequences)
    for part in a.parts:
        torch.testing.assert_close(getattr(a, part), getattr(b, part), rtol=1e-12, atol=1e-12)


def test_norms_by_eye():
    norms = made(Norms, X)
    assert norms.squares.tolist() == [19, 9]
    assert norms.norms.tolist() == [19**0.5, 3]
    assert norms.mean().tolist() == [19 / 4, 9 / 4] and norms.mean("sequence").tolist() == [19 / 2, 9 / 2]


def test_the_gram_matrix_by_eye():
    gram = made(Gram, X)
    assert gram.gram.tolist() == [[19, -1], [-1, 9]]
    assert gram.squares.tolist() == [19, 9]
    assert gram.mean("sequence").tolist() == [[19 / 2, -1 / 2], [-1 / 2, 9 / 2]]


def test_moments_by_eye():
    moments = made(Moments, X)
    assert moments.mean.tolist() == [0.25, 1.25]
    assert moments.variance().tolist() == pytest.approx([19 / 4 - 0.25**2, 9 / 4 - 1.25**2])
    assert moments.variance(unbiased=True).tolist() == pytest.approx([(19 - 0.25) / 3, (9 - 6.25) / 3])


@KINDS
def test_one_batch_equals_many_equals_merged_shards_in_any_order(kind):
    x = torch.randn(6, 5, 3).double()
    whole = made(kind, x)
    same(made(kind, *x.split(1)), whole)
    same(made(kind, *x.split([1, 3, 2])), whole)
    same(made(kind, x[torch.randperm(6)]), whole)
    shards = [made(kind, part) for part in x.split([4, 2])]
    shards[0].merge(shards[1])
    same(shards[0], whole)
    empty = kind(3, torch.float64)
    empty.merge(whole)
    whole.merge(kind(3, torch.float64))
    same(empty, whole)


@KINDS
def test_padding_changes_nothing(kind):
    x = torch.randn(2, 3, 4).double()
    padded = torch.cat([torch.full((2, 2, 4), 1e9).double(), x], 1)
    mask = torch.tensor([[False, False, True, True, True]] * 2)
    same(made(kind, padded, mask=mask), made(kind, x))
    same(made(kind, padded.reshape(10, 4), mask=mask.reshape(-1), sequences=2), made(kind, x))
    nothing = made(kind, padded, mask=mask & False)
    assert nothing.tokens == nothing.sequences == 0 and nothing.finite()


@KINDS
def test_states_come_back(kind):
    one = made(kind, X.double())
    again = Accumulator.from_state_dict(one.state_dict())
    same(again, one)
    again.update(X.double())
    assert one.tokens == 4 and again.tokens == 8


def test_sixteen_bits_are_summed_in_float32():
    x = torch.full((4096, 1), 0.1, dtype=torch.bfloat16)
    norms = made(Norms, x, dtype=torch.float32)
    assert norms.squares.dtype == torch.float32
    assert norms.squares.item() == pytest.approx(4096 * float(x[0, 0]) ** 2, rel=1e-4)


def test_the_mean_of_what_lies_far_from_zero_has_its_variance():
    """The sum of squares less the square of the sum would lose it all in float32."""
    x = torch.tensor([[1e4], [1e4 + 1], [1e4 + 2], [1e4 + 3]])
    assert made(Moments, *x.split(1), dtype=torch.float32).variance().item() == pytest.approx(1.25, rel=1e-3)


@KINDS
def test_not_finite_is_told(kind):
    assert not made(kind, torch.tensor([[1.0, float("nan")]])).finite()


def test_bad_input():
    norms = Norms(2)
    with pytest.raises(BadInput, match=r"shape \(3, 4\) has not the 2 features"):
        norms.update(torch.ones(3, 4))
    with pytest.raises(BadInput, match="a token mask of shape"):
        norms.update(torch.ones(3, 2), torch.ones(2, dtype=torch.bool))
    with pytest.raises(BadInput, match="cannot merge"):
        norms.merge(Norms(3))
    with pytest.raises(BadInput, match="cannot merge"):
        norms.merge(Moments(2))
    with pytest.raises(BadInput, match="float32 or float64"):
        Norms(2, torch.bfloat16)
    with pytest.raises(BadInput, match="per='row'"):
        norms.mean("row")


@pytest.mark.parametrize("width", (1, 3, 4, 9))
def test_a_gram_matrix_summed_in_strips_is_that_of_the_whole(width, monkeypatch):
    monkeypatch.setattr(Gram, "strip", 4)  # of nine columns: two strips and one of a single column
    x = torch.randn(40, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, parts = Gram(width, torch.float64), [Gram(width, torch.float64) for _ in range(2)]
    for part, rows in zip(parts, x.split(15)[:2], strict=True):
        part.update(rows)
    parts[0].merge(parts[1])
    parts[0].update(x[30:])  # after it has been looked at
    whole.update(x)
    for found in (whole, parts[0], Gram.from_state_dict(parts[0].state_dict())):
        torch.testing.assert_close(found.gram, x.T @ x)
        assert torch.equal(found.gram, found.gram.T) and torch.equal(found.squares, found.gram.diagonal())
