"""The variant of Wanda whose rows lose unequal numbers."""

import pytest
import torch

from secateurs.core.cumulative import cumulative_shares, keep_by_share
from secateurs.errors import BadInput, NotFinite


def scores(rows=6, columns=20, seed=0):
    drawn = torch.rand(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn ** torch.arange(1, rows + 1)[:, None]  # the later rows are the more uneven


def by_threshold(values, alpha):
    """The published rule: in every row, zero the smallest while their sum is at most alpha of the total."""
    order = values.argsort(1)
    gone = values.gather(1, order).cumsum(1) <= alpha * values.sum(1, keepdim=True)
    return ~torch.zeros_like(gone).scatter_(1, order, gone)


def test_shares_by_eye():
    values = torch.tensor([[4.0, 1.0, 3.0, 2.0], [0.0, 5.0, 5.0, -1.0], [0.0, 0.0, -0.5, 0.0]])
    assert cumulative_shares(values).tolist() == [[1.0, 0.1, 0.6, 0.3], [0.0, 1.0, 0.5, -1.0], [0.0, 0.0, -0.5, 0.0]]


def test_bisection_ends_in_the_same_mask():
    values = scores()
    for remove in (1, 30, 60, 97, 112):
        low, high = 0.0, 1.0
        while high - low > 1e-13:  # the authors stop at 0.001 of the sparsity
            middle = (low + high) / 2
            low, high = (middle, high) if int((~by_threshold(values, middle)).sum()) < remove else (low, middle)
        kept, alpha = keep_by_share(values, remove)
        assert torch.equal(kept, by_threshold(values, high))
        assert alpha == pytest.approx(high, abs=1e-12)


def test_rows_lose_unequal_numbers_that_add_up():
    kept, _ = keep_by_share(scores(), 60)
    lost = (~kept).sum(1)
    assert lost.sum() == 60 and len(set(lost.tolist())) > 1
    assert lost[-1] > lost[0]  # an uneven row has more that is small


def test_every_row_loses_its_smallest():
    values = scores()
    kept, _ = keep_by_share(values, 70)
    for row, mask in zip(values, kept, strict=True):
        assert row[~mask].max() < row[mask].min()


def test_the_count_is_exact_with_ties_and_zeros():
    values = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, -1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    for remove in range(13):
        kept, alpha = keep_by_share(values, remove)
        assert int((~kept).sum()) == remove and 0 <= alpha <= 1
    assert keep_by_share(values, 1)[0][1].tolist() == [True, False, True, True]  # zero already
    assert keep_by_share(values, 9)[0].int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]  # the later of equal ones


def test_a_rows_scale_is_immaterial():
    values = scores()
    assert torch.equal(keep_by_share(values * torch.logspace(-3, 3, 6, base=2)[:, None], 60)[0], keep_by_share(values, 60)[0])


def test_bad_input():
    with pytest.raises(BadInput, match="cannot remove 121 of the 120 entries of 'fc'"):
        keep_by_share(scores(), 121, "fc")
    with pytest.raises(NotFinite, match="'fc' has 1 non-finite"):
        keep_by_share(torch.tensor([[1.0, float("nan")]]), 1, "fc")
