"""SparseGPT's solver on rows of eight weights, against the published loop, brute force and closed forms (float64)."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.count import removed_count
from secateurs.core.obs import Blockwise, Fixed, Groups, solve
from secateurs.core.obs_factor import factorise
from secateurs.core.select import keep_mask, keep_mask_grouped
from secateurs.core.structures import NM
from secateurs.errors import BadInput, NotFinite


def problem(rows=5, columns=8, seed=0, tokens=40):
    """A weight and the Gram matrix of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, columns, generator=generator, dtype=torch.float64) @ mix
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64), x.T @ x


def hessian(factor):
    return factor.unit @ torch.diag(factor.scale.square()) @ factor.unit.T


def published(weight, u, keep, width):
    """The authors' loop (Frantar & Alistarh 2023, algorithm 1), ``keep(block, u_jj, start)`` giving the mask of a block."""
    w, errors = weight.clone(), torch.zeros(len(weight), dtype=weight.dtype)
    for start in range(0, w.shape[1], width):
        stop = min(start + width, w.shape[1])
        mask = keep(w[:, start:stop], u.diagonal()[start:stop], start)
        for i in range(start, stop):
            q = w[:, i] * mask[:, i - start]
            e = (w[:, i] - q) / u[i, i]
            w[:, i:] -= torch.outer(e, u[i, i:])
            w[:, i] = q
            errors += e.square()
    return w, errors


def least_squares(w, h, kept):
    """The row that minimises (w - v) H (w - v)^T with v zero where it is not kept."""
    gone = ~kept
    v = torch.zeros_like(w)
    v[kept] = w[kept] + torch.linalg.solve(h[kept][:, kept], h[kept][:, gone] @ w[gone])
    return v


def loss(w, v, h):
    return ((w - v) @ h * (w - v)).sum(-1)


def some_mask(shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


# -- the published algorithm


def test_it_is_the_published_loop_unstructured():
    weight, gram = problem()
    factor = factorise(gram)

    def keep(block, u, start):
        return keep_mask(block.square() / u.square(), 10)

    found = solve(weight, factor, Blockwise.of(weight.shape, 20, 4))
    expected, errors = published(weight, factor.upper(), keep, 4)
    assert torch.allclose(found.weight, expected, rtol=1e-10) and torch.equal(found.weight == 0, expected == 0)
    assert torch.allclose(found.errors, errors, rtol=1e-10)


@pytest.mark.parametrize("n, m", [(2, 4), (1, 2), (4, 8)])
def test_it_is_the_published_loop_for_n_of_m(n, m):
    weight, gram = problem(columns=16)
    factor = factorise(gram)

    def keep(block, u, start):
        return keep_mask_grouped(block.square() / u.square(), m - n)

    found = solve(weight, factor, Groups(NM(n, m)))
    expected, errors = published(weight, factor.upper(), keep, m)
    assert torch.allclose(found.weight, expected, rtol=1e-9) and torch.allclose(found.errors, errors, rtol=1e-9)
    assert (found.mask.reshape(-1, m).sum(1) == n).all()


def test_later_masks_see_updated_weights():
    """Column 2 copies column 0: what column 0 loses moves there before the second block is judged."""
    x = torch.eye(4, dtype=torch.float64)[:, [0, 1, 0, 3]]
    gram = x.T @ x
    weight = torch.tensor([[1.0, 3.0, 0.5, 1.2]], dtype=torch.float64)
    found = solve(weight, factorise(gram, 1e-6), Blockwise.of((1, 4), 2, 2))
    assert found.mask.tolist() == [[False, True, True, False]]  # not 0.5, which has become 1.5
    assert found.weight[0].tolist() == pytest.approx([0, 3, 1.5, 0], abs=1e-5)


# -- closed forms


@pytest.mark.parametrize("seed", range(3))
def test_the_errors_are_the_layers_squared_output_error(seed):
    weight, gram = problem(seed=seed)
    factor = factorise(gram)
    for rule in (Blockwise.of(weight.shape, 17, 3), Groups(NM(2, 4)), Fixed(some_mask(weight.shape))):
        for bits in (None, 4):
            found = solve(weight, factor, rule, bits=bits)
            assert torch.allclose(found.errors, loss(weight, found.weight, hessian(factor)), rtol=1e-9)


def test_removing_first_columns_is_the_least_squares_refit():
    weight, gram = problem()
    factor, kept = factorise(gram), torch.arange(8) >= 3
    found = solve(weight, factor, Fixed(kept.expand(5, 8)))
    expected = torch.stack([least_squares(w, hessian(factor), kept) for w in weight])
    assert torch.allclose(found.weight, expected, rtol=1e-9)


def test_removing_other_columns_costs_more_than_the_refit_and_less_than_nothing_done():
    weight, gram = problem(rows=1)
    factor = factorise(gram)
    h, worse = hessian(factor), 0
    for gone in itertools.combinations(range(8), 3):
        kept = torch.tensor([i not in gone for i in range(8)])
        found = loss(weight, solve(weight, factor, Fixed(kept[None])).weight, h)
        best = loss(weight, least_squares(weight[0], h, kept)[None], h)
        assert found >= best * (1 - 1e-9)
        worse += bool(found > best * 1.0001)
        if gone[-1] == 2:
            assert torch.allclose(found, best, rtol=1e-9)
    assert worse > 40  # of the 56 masks


def test_a_diagonal_hessian_needs_no_update_and_ranks_as_wanda_in_blocks():
    weight, gram = problem()
    gram = torch.diag(gram.diagonal())
    found = solve(weight, factorise(gram, 0.0), Blockwise.of(weight.shape, 20, 4))
    assert torch.equal(found.weight, weight * found.mask)
    wanda = weight.abs() * gram.diagonal().sqrt()
    assert torch.equal(found.mask, torch.cat([keep_mask(wanda[:, :4], 10), keep_mask(wanda[:, 4:], 10)], 1))


@given(st.integers(1, 60), st.integers(1, 200), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_blocks_of_any_size_give_the_same_weights_for_one_mask(width, columns, seed):
    weight, gram = problem(3, columns, seed, 2 * columns + 5)
    factor, mask = factorise(gram, 0.1), some_mask(weight.shape, seed)
    expected, _ = published(weight, factor.upper(), lambda block, u, start: mask[:, start : start + block.shape[1]], columns)
    found = solve(weight, factor, Fixed(mask, width))
    assert torch.allclose(found.weight, expected, rtol=1e-7, atol=1e-9) and torch.equal(found.mask, mask)


def test_a_constant_factor_of_the_hessian_is_immaterial():
    weight, gram = problem()
    rule = Blockwise.of(weight.shape, 20, 4)
    one, two = solve(weight, factorise(gram), rule), solve(weight, factorise(gram / 4096), rule)
    assert torch.equal(one.mask, two.mask) and torch.allclose(one.weight, two.weight, rtol=1e-12)


def test_an_inputs_scale_is_immaterial_for_one_mask():
    """x_j c_j with w_j / c_j is the same function; without dampening the same repair."""
    weight, gram = problem()
    c, mask = torch.logspace(-2, 2, 8, base=2, dtype=torch.float64), Fixed(some_mask((5, 8)))
    plain = solve(weight, factorise(gram, 0.0), mask).weight
    scaled = solve(weight / c, factorise(gram * c * c[:, None], 0.0), mask).weight
    assert torch.allclose(scaled * c, plain, rtol=1e-8)


# -- counts and bits


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", [Blockwise.of((5, 8), 0, 3), Groups(NM(4, 4)), Fixed(torch.ones(5, 8, dtype=torch.bool))])
def test_removing_nothing_gives_the_same_bits(rule, dtype):
    weight, gram = problem()
    weight = weight.to(dtype)
    weight[0, 0], weight[1, 1] = 0.0, -0.0
    gram[3] = gram[:, 3] = 0.0  # a dead input keeps its weights too
    found = solve(weight, factorise(gram.float()), rule)
    assert torch.equal(found.weight.view(torch.uint8), weight.view(torch.uint8)) and found.mask.all()
    assert found.weight.dtype == dtype and not found.errors.any()


@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 17), st.integers(0, 99), st.booleans())
@settings(max_examples=40, deadline=None)
def test_counts_are_exact_with_ties_and_zeros(rows, columns, width, percent, ties):
    weight, gram = problem(rows, columns, percent, columns + 20)
    if ties:
        weight = weight.sign() * (weight.abs() > 0.7)
        gram = torch.eye(columns, dtype=torch.float64)
    remove = removed_count(weight.numel(), percent / 100)
    rule = Blockwise.of(weight.shape, remove, width)
    found = solve(weight, factorise(gram), rule)
    assert int((~found.mask).sum()) == remove == sum(rule.quotas)
    assert not found.weight[~found.mask].any() and not torch.signbit(found.weight[~found.mask]).any()


def test_quotas_are_equal_shares_of_the_blocks():
    assert Blockwise.of((3, 10), 15, 4).quotas == (6, 6, 3)
    assert Blockwise.of((1, 7), 3, 2).quotas == (1, 1, 1, 0)  # shares 6/7, 6/7, 6/7, 3/7
    assert Blockwise.of((1, 4), 1, 2).quotas == (1, 0)  # ties to the left


def test_ties_keep_the_lower_flat_index():
    found = solve(torch.ones(2, 4).double(), factorise(torch.eye(4).double()), Blockwise.of((2, 4), 3, 4))
    assert found.mask.tolist() == [[True] * 4, [True, False, False, False]]


def test_zeros_go_first_then_dead_inputs_and_pruning_again_changes_nothing():
    weight, gram = problem(rows=1)
    gram[2] = gram[:, 2] = 0.0
    weight[0, 2], weight[0, 5], weight[0, 0] = 100.0, 0.0, 1e-3
    factor = factorise(gram)
    gone = [solve(weight, factor, Blockwise.of((1, 8), k)).mask[0].logical_not().nonzero().flatten().tolist() for k in (1, 2)]
    assert gone == [[5], [2, 5]]
    for rule in (Blockwise.of((1, 8), 4, 4), Groups(NM(2, 4))):
        once = solve(weight, factor, rule)
        twice = solve(once.weight, factor, rule)
        assert torch.equal(once.weight, twice.weight) and torch.equal(once.mask, twice.mask)


def test_a_short_last_group_is_padded_when_asked():
    weight, gram = problem(columns=10)
    with pytest.raises(BadInput, match=r"'2:4' does not fit 'fc' of shape \(5, 10\)"):
        solve(weight, factorise(gram), Groups(NM(2, 4)), name="fc")
    short = solve(weight, factorise(gram), Groups(NM(1, 4, pad=True))).mask
    assert short[:, :8].reshape(-1, 4).sum(1).tolist() == [1] * 10 and short[:, 8:].sum(1).tolist() == [1] * 5
    assert solve(weight, factorise(gram), Groups(NM(3, 4, pad=True))).mask[:, 8:].all()


def test_sixteen_bit_weights_and_a_float32_factor():
    weight, gram = problem(16, 64, tokens=200)
    exact = solve(weight, factorise(gram), Blockwise.of(weight.shape, 512, 32))
    single = solve(weight.bfloat16(), factorise(gram.float()), Fixed(exact.mask))
    assert single.weight.dtype == torch.bfloat16 and not single.weight[~exact.mask].any()
    assert torch.allclose(single.weight.double(), exact.weight, rtol=0.05, atol=0.03)
    assert torch.allclose(solve(weight.float(), factorise(gram.float()), Fixed(exact.mask)).weight.double(), exact.weight,
                          rtol=1e-3, atol=1e-4)  # fmt: skip


# -- rounding jointly


@pytest.mark.parametrize("bits", [4, 8])
def test_every_rounded_weight_lies_on_its_rows_grid(bits):
    weight, gram = problem()
    for rule in (Blockwise.of(weight.shape, 20, 4), Blockwise.of(weight.shape, 0), Groups(NM(2, 4))):
        found = solve(weight, factorise(gram), rule, bits=bits)
        grid = found.grid
        values = grid.step[:, None] * (torch.arange(2**bits).double() - grid.zero[:, None])
        assert all((row[:, None] == lattice).any(1).all() for row, lattice in zip(found.weight, values, strict=True))
        assert not found.weight[~found.mask].any()


def test_later_columns_make_up_for_rounding_too():
    weight, gram = problem(64, 32, tokens=100)
    factor = factorise(gram)
    found = solve(weight, factor, Blockwise.of(weight.shape, 1024), bits=4)
    plain = found.grid.round(solve(weight, factor, Fixed(found.mask)).weight.T).T * found.mask
    h = hessian(factor)
    assert loss(weight, found.weight, h).sum() < 0.95 * loss(weight, plain, h).sum()


def test_rounding_alone_loses_less_than_rounding_to_nearest():
    weight, gram = problem(64, 32, tokens=100)
    factor = factorise(gram)
    found, h = solve(weight, factor, Blockwise.of(weight.shape, 0), bits=4), hessian(factor)
    assert loss(weight, found.weight, h).sum() < 0.8 * loss(weight, found.grid.round(weight.T).T, h).sum()


# -- what cannot work


def test_bad_input_is_quoted():
    weight, gram = problem()
    factor = factorise(gram)
    with pytest.raises(BadInput, match=r"'fc' has shape \(5, 7\), its Hessian 8 inputs"):
        solve(weight[:, :7], factor, Groups(NM(2, 4)), name="fc")
    with pytest.raises(BadInput, match=r"remove=41, block=128: a matrix of 5 x 8 loses 0 to 40"):
        Blockwise.of((5, 8), 41)
    with pytest.raises(BadInput, match=r"3 quotas for the blocks of 4 columns of 'fc'"):
        solve(weight, factor, Blockwise((1, 1, 1), 4), name="fc")
    with pytest.raises(BadInput, match=r"mask of 'fc' is torch.float64 \(5, 8\); it must be boolean"):
        solve(weight, factor, Fixed(weight), name="fc")
    with pytest.raises(BadInput, match="bits=3: weights are rounded to 4 or 8 bits"):
        solve(weight, factor, Groups(NM(2, 4)), bits=3)
    weight[0, 0] = torch.nan
    with pytest.raises(NotFinite, match="'fc' has 1 non-finite"):
        solve(weight, factor, Groups(NM(2, 4)), name="fc")


def test_an_update_beyond_sixteen_bits_is_an_error():
    """Inputs 1 and 2 are one, so the second weight takes on all of the first: more than float16 holds."""
    gram = torch.ones(2, 2, dtype=torch.float64)
    mask = Fixed(torch.tensor([[False, True]]))
    with pytest.raises(NotFinite, match="'fc' has 1 non-finite"):
        solve(torch.full((1, 2), 60000.0, dtype=torch.float16), factorise(gram), mask, name="fc")
    assert torch.isfinite(solve(torch.full((1, 2), 60000.0), factorise(gram), mask).weight).all()
