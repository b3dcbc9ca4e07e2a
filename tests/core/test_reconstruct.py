"""Closed-form removal of input blocks, against least squares by brute force on layers of six columns (float64)."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.obs_factor import NotPositiveDefinite
from secateurs.core.reconstruct import block_costs, columns_of, damped, eliminate, inverse, refit, refit_from
from secateurs.errors import BadInput, NotFinite


def layer(seed=0, rows=3, columns=6, samples=20):
    """A weight [out, in] and correlated inputs [in, samples]."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    x = mix @ torch.randn(columns, samples, generator=generator, dtype=torch.float64)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64), x


def least_squares(w, x, kept):
    """``W_K`` by LAPACK's least squares on the outputs, which knows nothing of Hessians, and the squared error."""
    new = torch.linalg.lstsq(x[kept].T, (w @ x).T).solution.T
    return new, (w @ x - new @ x[kept]).square().sum()


def without(columns, gone):
    return torch.tensor([i for i in range(columns) if i not in gone])


BLOCKS = torch.tensor([[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("block", range(3))
def test_cost_and_update_are_those_of_least_squares(block):
    w, x = layer()
    inverted = inverse(x @ x.T)
    kept = without(6, BLOCKS[block].tolist())
    new, error = least_squares(w, x, kept)
    torch.testing.assert_close(block_costs(w, inverted, BLOCKS)[block], error)
    changed, _ = eliminate(w, inverted, BLOCKS[block])
    torch.testing.assert_close(changed[:, kept], new)
    assert changed[:, BLOCKS[block]].eq(0).all()


def test_all_sets_of_columns_agree_with_the_refit_and_least_squares():
    w, x = layer(1)
    h = x @ x.T
    for gone in itertools.chain.from_iterable(itertools.combinations(range(6), n) for n in range(1, 6)):
        kept = without(6, gone)
        new, error = least_squares(w, x, kept)
        torch.testing.assert_close(refit(w, h, kept), new)
        torch.testing.assert_close(eliminate(w, inverse(h), torch.tensor(gone))[0][:, kept], new)
        torch.testing.assert_close(block_costs(w, inverse(h), torch.tensor([gone]))[0], error)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3), 2)))
def test_one_after_the_other_is_all_at_once(order):
    """In any order; the costs along the way add up to the joint one."""
    w, x = layer(2)
    inverted = inverse(damped(x @ x.T))
    joint, left = eliminate(w, inverted, BLOCKS[list(order)])
    costs, now, rest = 0.0, w, inverted
    for block in order:
        costs += block_costs(now, rest, BLOCKS[block : block + 1])[0]
        now, rest = eliminate(now, rest, BLOCKS[block])
    torch.testing.assert_close(now, joint)
    torch.testing.assert_close(rest, left)
    torch.testing.assert_close(costs, block_costs(w, inverted, BLOCKS[list(order)].reshape(1, -1))[0])


def test_what_is_left_of_the_inverse_is_the_inverse_of_what_is_left():
    w, x = layer(3)
    h = damped(x @ x.T)
    _, left = eliminate(w, inverse(h), torch.tensor([1, 4]))
    kept = without(6, (1, 4))
    torch.testing.assert_close(left[kept][:, kept], inverse(h[kept][:, kept]))
    assert left[[1, 4]].eq(0).all() and left[:, [1, 4]].eq(0).all()


def test_uncorrelated_inputs_leave_the_column_norms_and_nothing_to_make_up():
    """H = I by hand: (1, 2), (3, 4), (0, 1) in pairs of columns."""
    w = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 1.0]], dtype=torch.float64)
    inverted = inverse(torch.eye(6, dtype=torch.float64))
    assert block_costs(w, inverted, BLOCKS).tolist() == [5.0, 25.0, 1.0]
    assert eliminate(w, inverted, BLOCKS[1])[0].tolist() == [[1, 2, 0, 0, 0, 1]]


def test_of_two_equal_inputs_one_is_free_and_the_other_takes_its_weight():
    """x2 = x1 with weights 3 and 2: without x1 the weight of x2 is 5, and the output is what it was."""
    x = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 0, -1]], dtype=torch.float64)
    w = torch.tensor([[3.0, 2.0, 7.0]], dtype=torch.float64)
    inverted = inverse(damped(x @ x.T, 1e-9))
    costs = block_costs(w, inverted, torch.arange(3)[:, None])
    assert costs[0] < 1e-6 and costs[1] < 1e-6 and costs[2] > 50
    torch.testing.assert_close(eliminate(w, inverted, torch.tensor([0]))[0], torch.tensor([[0.0, 5, 7]]).double())
    torch.testing.assert_close(refit(w, x @ x.T, torch.tensor([1, 2])), torch.tensor([[5.0, 7.0]]).double())


def test_a_channel_of_a_convolution_owns_the_columns_of_its_kernel():
    """Zeroing channel 1 of the input and refitting by hand is removing its nine unfolded columns."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 6, 6, generator=generator, dtype=torch.float64)
    kernel = torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.nn.functional.unfold(images, 3).transpose(0, 1).flatten(1)
    columns = columns_of(torch.arange(3)[:, None], 9)
    assert columns[1].tolist() == list(range(9, 18))
    inverted = inverse(x @ x.T)
    new, error = least_squares(kernel.flatten(1), x, without(27, range(9, 18)))
    torch.testing.assert_close(block_costs(kernel.flatten(1), inverted, columns)[1], error)
    changed = eliminate(kernel.flatten(1), inverted, columns[1])[0].view_as(kernel)
    torch.testing.assert_close(changed[:, [0, 2]].flatten(1), new)
    before, after = (torch.nn.functional.conv2d(images, k) for k in (kernel, changed))
    torch.testing.assert_close((before - after).square().sum(), error)


def test_columns_behind_a_flatten():
    """[N, 2, H, W] flattened gives channel c the columns c * HW + i; flattened from NHWC, i * 2 + c."""
    assert columns_of(torch.arange(2)[:, None], 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert columns_of(torch.arange(8).view(4, 2).T).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_refit_from_pruned_inputs_is_least_squares_to_the_dense_outputs():
    w, dense = layer(4)
    pruned = dense[:4] + 0.3 * torch.sin(dense[1:5])
    best = torch.linalg.lstsq(pruned.T, (w @ dense).T).solution.T
    torch.testing.assert_close(refit_from(w, dense @ pruned.T, pruned @ pruned.T, 0), best)


def test_refit_from_is_the_published_formula():
    w, dense = layer(5)
    pruned = 0.9 * dense[2:]
    gram = pruned @ pruned.T
    ridge = 0.01 * gram.diagonal().mean() * torch.eye(4, dtype=torch.float64)
    expected = w @ dense @ pruned.T @ torch.linalg.inv(gram + ridge)
    torch.testing.assert_close(refit_from(w, dense @ pruned.T, gram), expected)


def test_drawn_to_the_old_weights_it_is_the_damped_refit_where_nothing_before_was_pruned():
    w, x = layer(6)
    kept, gram = without(6, (0, 3)), x @ x.T
    scale = gram.diagonal().mean() / gram[kept][:, kept].diagonal().mean()  # each dampens by its own mean
    found = refit_from(w, gram[:, kept], gram[kept][:, kept], 0.01 * float(scale), prior=w[:, kept])
    torch.testing.assert_close(found, refit(w, damped(gram), kept))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 7), st.data())
def test_removal_never_beats_least_squares_and_meets_it(seed, rows, columns, data):
    w, x = layer(seed, rows, columns, 30)
    gone = data.draw(st.sets(st.integers(0, columns - 1), min_size=1, max_size=columns - 1))
    kept, h = without(columns, gone), x @ x.T
    changed, _ = eliminate(w, inverse(h), torch.tensor(sorted(gone)))
    error = (w @ x - changed @ x).square().sum()
    torch.testing.assert_close(error, least_squares(w, x, kept)[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(block_costs(w, inverse(h), torch.tensor([sorted(gone)]))[0], error, rtol=1e-5, atol=1e-6)


def test_removing_nothing_changes_nothing():
    w, x = layer(7)
    inverted = inverse(x @ x.T)
    changed, left = eliminate(w, inverted, torch.empty(0, dtype=torch.int64))
    assert torch.equal(changed, w) and torch.equal(left, inverted)


def test_half_precision_weights_come_back_as_they_were():
    w, x = layer(8)
    inverted = inverse(x @ x.T)
    assert eliminate(w.bfloat16(), inverted, BLOCKS[0])[0].dtype == torch.bfloat16
    assert refit(w.bfloat16(), x @ x.T, BLOCKS[0]).dtype == torch.bfloat16
    assert block_costs(w.bfloat16(), inverted, BLOCKS).dtype == torch.float64


def test_dampening_is_a_share_of_the_mean_diagonal():
    gram = torch.tensor([[1.0, 0.5], [0.5, 3.0]])
    torch.testing.assert_close(damped(gram, 0.01), torch.tensor([[1.02, 0.5], [0.5, 3.02]]))


def test_too_few_inputs_without_dampening_is_refused_by_name():
    """Three samples of six inputs: three directions without data."""
    w, x = layer(9, samples=3)
    gram = x @ x.T
    gram[0, 0] -= 1e-3
    for call in (lambda: inverse(gram, name="blocks.3.conv2"), lambda: refit(w, gram, torch.arange(6), name="blocks.3.conv2")):
        with pytest.raises(NotPositiveDefinite, match=r"blocks\.3\.conv2"):
            call()
    assert torch.isfinite(inverse(damped(gram))).all()


def test_a_column_cannot_go_twice():
    w, x = layer(10)
    once = eliminate(w, inverse(x @ x.T), torch.tensor([2]))
    with pytest.raises(NotPositiveDefinite, match="'fc'"):
        eliminate(*once, torch.tensor([2]), name="fc")


@pytest.mark.parametrize("call", [
    lambda w, h: damped(h[:3]),
    lambda w, h: damped(h, -0.1),
    lambda w, h: damped(torch.zeros(6, 6)),
    lambda w, h: block_costs(w[:, :5], h, BLOCKS),
    lambda w, h: block_costs(w, h, BLOCKS.flatten()),
    lambda w, h: block_costs(w, h, BLOCKS.double()),
    lambda w, h: eliminate(w, h, torch.tensor([0, 0])),
    lambda w, h: eliminate(w, h, torch.tensor([6])),
    lambda w, h: refit_from(w, h[:, :3], h[:4, :4]),
    lambda w, h: refit_from(w, h[:, :3], h[:3, :3], prior=w),
])  # fmt: skip
def test_what_does_not_fit_is_refused(call):
    w, x = layer(11)
    with pytest.raises(BadInput):
        call(w, x @ x.T)


def test_what_is_not_finite_is_refused():
    w, x = layer(12)
    x[0, 0] = float("nan")
    for call in (lambda: damped(x @ x.T, name="fc"), lambda: refit_from(w, x @ x.T, torch.eye(6).double(), name="fc")):
        with pytest.raises(NotFinite, match="'fc'"):
            call()
