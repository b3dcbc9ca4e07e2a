"""The PQ index: its closed forms, invariances, and the bound on what must stay, against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.pq_index import PQ, gini_index, index_of_rows, pq_index
from secateurs.errors import BadInput

PAIRS = pytest.mark.parametrize(("p", "q"), [(0.5, 1.0), (1.0, 2.0), (0.2, 1.0), (1.0, 1.8)])
VECTORS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40).map(lambda v: torch.tensor(v, dtype=torch.float64))


def by_hand(values: list[float], p: float, q: float) -> float:
    norm_p, norm_q = (sum(abs(v) ** n for v in values) ** (1 / n) for n in (p, q))
    return 1 - len(values) ** (1 / q - 1 / p) * norm_p / norm_q


@PAIRS
def test_six_weights_by_hand(p: float, q: float) -> None:
    values = [3.0, -1.0, 0.5, 0.25, -2.0, 4.0]
    assert pq_index(torch.tensor(values, dtype=torch.float64), p, q) == pytest.approx(by_hand(values, p, q), abs=1e-14)


def test_one_nonzero_of_a_hundred() -> None:
    values = torch.zeros(100)
    values[7] = -3
    assert pq_index(values) == pytest.approx(0.99)  # 1 - 100^(1 - 2)
    assert pq_index(values, 1.0, 2.0) == pytest.approx(1 - 100**-0.5)
    assert pq_index(values, zeros=False) == 0  # one weight is left, and one weight has nothing to lose


@PAIRS
@pytest.mark.parametrize("values", [torch.zeros(5), torch.full((5,), 0.1), torch.tensor([2.0]), torch.zeros(0)], ids=str)
def test_alike_one_or_none_have_the_index_zero(values: torch.Tensor, p: float, q: float) -> None:
    assert pq_index(values, p, q) == pytest.approx(0, abs=1e-12)


@PAIRS
@settings(max_examples=25, deadline=None)
@given(values=VECTORS, factor=st.floats(1e-30, 1e30))
def test_scale_and_copies_do_not_matter(p: float, q: float, values: torch.Tensor, factor: float) -> None:
    found = pq_index(values, p, q)
    assert 0 <= found <= 1 - len(values) ** (1 / q - 1 / p) + 1e-12
    assert pq_index(values * factor, p, q) == pytest.approx(found, abs=1e-9)
    assert pq_index(torch.cat([values, values]), p, q) == pytest.approx(found, abs=1e-9)


@PAIRS
def test_a_constant_lowers_it_and_a_richer_entry_raises_it(p: float, q: float) -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert pq_index(values + 0.5, p, q) < pq_index(values, p, q)
    richer = values + torch.tensor([-0.5, 0.0, 0.0, 0.5], dtype=torch.float64)
    assert pq_index(richer, p, q) > pq_index(values, p, q)
    assert gini_index(richer) > gini_index(values) > gini_index(values + 0.5)


@PAIRS
@settings(max_examples=25, deadline=None)
@given(values=VECTORS)
def test_the_bound_holds_for_every_number_of_entries_kept(p: float, q: float, values: torch.Tensor) -> None:
    sizes, index, pq = sorted(values.tolist(), reverse=True), pq_index(values, p, q), PQ(p, q)
    for r in range(1, len(sizes) + 1):
        eta = math.fsum(v**p for v in sizes[r:]) / math.fsum(v**p for v in sizes[:r])
        assert r >= pq.retained(len(sizes), index, eta) * (1 - 1e-6)


def test_the_bound_is_met_where_all_are_alike() -> None:
    assert PQ().retained(50, pq_index(torch.ones(50)), 0.0) == pytest.approx(50)


def test_gaussian_weights() -> None:
    values = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    half, one = pq_index(values), pq_index(values, 1.0, 2.0)
    assert half == pytest.approx(0.153, abs=2e-3) and one == pytest.approx(0.202, abs=2e-3)
    assert PQ(0.5, 1.0).removed(1_000_000, half) / 1e6 == pytest.approx(0.153, abs=2e-3)
    assert PQ(1.0, 2.0).removed(1_000_000, one) / 1e6 == pytest.approx(0.364, abs=2e-3)


def test_the_amount_is_scaled_by_gamma_capped_by_beta_and_loosened_by_eta() -> None:
    pq = PQ(0.5, 1.0)  # r = d (1 + eta)^-2 (1 - I)
    assert pq.removed(100, 0.3) == 30 and pq.removed(100, 0.3, gamma=2.0) == 60
    assert pq.removed(100, 0.3, gamma=9.0, beta=0.75) == 75
    assert pq.retained(100, 0.3, eta=1.0) == pytest.approx(17.5)
    assert [pq.removed(d, 0.0) for d in (0, 1, 7)] == [0, 0, 0]


def test_rows_count_their_survivors_alone() -> None:
    values = torch.tensor([[1.0, 4.0, 9.0, 0.0], [5.0, 5.0, 5.0, 7.0], [3.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    kept = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    found = index_of_rows(values, kept, PQ())
    assert found[0] == pytest.approx(by_hand([1, 4, 9], 0.5, 1.0))  # 1 - (1 + 2 + 3)^2 / (3 * 14) = 1 / 7
    assert found[0] == pytest.approx(1 / 7) and found[1:].tolist() == pytest.approx([0, 0, 0])


def test_parts_of_a_large_tensor_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(1001, generator=torch.Generator().manual_seed(1)).bfloat16()
    whole = pq_index(values)
    monkeypatch.setattr("secateurs.core.pq_index._PART", 64)
    assert pq_index(values) == pytest.approx(whole, abs=1e-12)
    assert pq_index(values) == pytest.approx(float(index_of_rows(values[None], torch.ones(1, 1001) > 0, PQ())), abs=1e-12)


def test_gini() -> None:
    assert gini_index(torch.tensor([0.0, 0.0, 0.0, -2.0])) == pytest.approx(0.75)
    assert gini_index(torch.ones(4)) == pytest.approx(0) and gini_index(torch.zeros(4)) == 0


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (1.0, math.inf)])
def test_norms_in_the_wrong_order_are_refused(p: float, q: float) -> None:
    with pytest.raises(BadInput, match=f"p={p}, q={q}"):
        PQ(p, q)
