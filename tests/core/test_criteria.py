"""Criteria by eye: higher = keep."""

import functools
import math
from types import SimpleNamespace

import pytest
import torch

from secateurs.core.criteria import CRITERIA, find_criterion, noise
from secateurs.core.select import keep_mask, keep_mask_grouped
from secateurs.errors import BadInput

W = torch.tensor([-3.0, 0.5, 0.0, 2.0, -0.0, 1.0], dtype=torch.float64)
G = torch.tensor([0.1, -4.0, 9.0, 0.0, -5.0, 1.0], dtype=torch.float64)
CPU = torch.device("cpu")


def score(name, weight=W, **statistics):
    return find_criterion(name).score(weight, statistics)


def test_magnitude_by_eye():
    assert score("magnitude").tolist() == [3.0, 0.5, 0.0, 2.0, 0.0, 1.0]
    assert find_criterion("magnitude").needs == frozenset()


def test_gradient_by_eye_with_zero_weights_below_all():
    assert score("gradient", gradient=G).tolist() == [0.1, 4.0, -0.1, 0.0, -1 / 6, 1.0]
    assert keep_mask(score("gradient", gradient=G), 3).int().tolist() == [1, 1, 0, 0, 0, 1]


def test_random_takes_zero_weights_first_and_ranks_them_among_themselves():
    drawn = torch.tensor([0.9, 0.1, 0.75, 0.5, 0.25, 0.0], dtype=torch.float64)
    scores = score("random", noise=drawn)
    assert [scores[i].item() for i in (0, 1, 3, 5)] == [0.9, 0.1, 0.5, 0.0]
    assert [keep_mask(scores, k).int().tolist() for k in (1, 2, 3)] == [
        [1, 1, 1, 1, 0, 1],  # of the zeros the one with the lower noise
        [1, 1, 0, 1, 0, 1],
        [1, 1, 0, 1, 0, 0],
    ]


def test_taylor_is_the_connection_sensitivity_of_snip():
    """L = (c1 w1 x1 + c2 w2 x2 - y)^2 / 2 with w = (2, -1), x = (1, 3), y = 1: the residual is -2, so |dL/dc| = (4, 6)."""
    w, x, y = torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64), 1.0
    c = torch.ones(2, dtype=torch.float64, requires_grad=True)
    ((c * w * x).sum() - y).square().div(2).backward()
    assert c.grad.abs().tolist() == [4.0, 6.0]
    gradient = ((w * x).sum() - y) * x
    assert score("taylor", w, gradient=gradient).tolist() == [4.0, 6.0]


def test_grasp_keeps_what_the_gradient_flow_needs():
    """Taking away a weight changes the squared norm of the gradient by about -2 w (H g): a quadratic loss has no third order.

    L = w'Aw / 2 - b'w with A = diag(4, 1, 2), b = (1, 5, -2), w = (1, 2, -1): g = Aw - b = (3, -3, 0), Hg = (12, -3, 0).
    """
    a, b, w = (torch.tensor(v, dtype=torch.float64) for v in ([4.0, 1, 2], [1.0, 5, -2], [1.0, 2, -1]))
    a = torch.diag(a)
    g = a @ w - b
    scores = score("grasp", w, **{"hessian-gradient": a @ g})
    assert scores.tolist() == [12.0, -6.0, 0.0]
    step = 1e-6  # of the way to zero, where the first order is all
    for i in range(3):
        less = w.clone()
        less[i] *= 1 - step
        change = (a @ less - b).square().sum() - g.square().sum()
        assert float(change) / step == pytest.approx(-2 * scores[i].item(), abs=1e-3)
    assert keep_mask(scores, 1).tolist() == [True, False, True]


def test_grasp_takes_zero_weights_before_those_it_would_rather_be_without():
    scores = score("grasp", **{"hessian-gradient": G, "fisher": SimpleNamespace(diagonal=lambda estimate: G.abs() + 1)})
    assert [scores[i].item() for i in (0, 1, 3, 5)] == pytest.approx([-0.3, -2.0, 0.0, 1.0])
    assert keep_mask(scores, 2).int().tolist() == [1, 1, 0, 1, 0, 1]


def test_taylor_takes_zero_weights_before_those_without_a_gradient():
    assert score("taylor", gradient=G).tolist() == pytest.approx([0.3, 2.0, -1.0, 0.0, -1.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_products_of_sixteen_bit_floats_keep_their_order(dtype):
    w, g = torch.tensor([1e-3, 2e-3, 3e-3], dtype=dtype), torch.full((3,), 1e-5, dtype=dtype)
    scores = score("taylor", w, gradient=g)
    assert 0 < scores[0] < scores[1] < scores[2]


def test_a_gradient_that_is_no_number_stays_one_at_a_zero_weight():
    scores = score("gradient", torch.zeros(3), gradient=torch.tensor([math.inf, math.nan, 1.0]))
    assert torch.isfinite(scores).tolist() == [False, False, True]


def test_every_criterion_needs_what_it_reads():
    for criterion in CRITERIA.values():
        statistics = {"gradient": G, "noise": G.abs() / 10, "norms": G.abs(), "gradient-magnitude": G.abs()} | {
                      "hessian-gradient": G, "fisher": SimpleNamespace(diagonal=lambda estimate: G.abs() + 1)}
        asked = {name: statistics[name] for name in criterion.needs}
        assert criterion.score(W, asked).shape == W.shape
        for name in criterion.needs:
            with pytest.raises(KeyError, match=name):
                criterion.score(W, {k: v for k, v in asked.items() if k != name})


def test_an_unknown_criterion_is_quoted():
    with pytest.raises(BadInput, match=r"criterion='magnitud' is unknown; use one of magnitude.*did you mean 'magnitude'"):
        find_criterion("magnitud")


def test_noise_depends_on_the_seed_and_the_name_alone():
    shape = torch.Size((4, 8))
    drawn = noise(0, "fc1.weight", shape, CPU)
    torch.manual_seed(99)
    torch.rand(3)
    assert torch.equal(noise(0, "fc1.weight", shape, CPU), drawn)  # whatever was drawn in between
    assert not torch.equal(noise(0, "fc2.weight", shape, CPU), drawn)  # layers of one shape differ
    assert not torch.equal(noise(1, "fc1.weight", shape, CPU), drawn)
    assert not torch.equal(noise(-1, "fc1.weight", shape, CPU), drawn)
    assert drawn.dtype == torch.float32 and drawn.min() >= 0 and drawn.max() < 1


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    noise(0, "w", torch.Size((3,)), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_uniform():
    drawn = noise(3, "w", torch.Size((20_000,)), CPU)
    counts = torch.histc(drawn, 10, 0, 1)
    assert (counts - 2000).abs().max() < 5 * math.sqrt(2000 * 0.9)


# -- criteria that know the inputs


def rows_kept(name, weight, remove, **statistics):
    return keep_mask_grouped(score(name, weight, **statistics), remove)


def samples(rows=5, columns=8, n=6):
    """A weight, the norms of its inputs, and the gradients of n samples."""
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    return draw(rows, columns), draw(columns).abs() + 0.1, draw(n, rows, columns)


def test_wanda_by_eye():
    weight, norms = torch.tensor([[4.0, 0.0, -1.0, 3.0], [1.0, 1.0, 1.0, -1.0]]), torch.tensor([1.0, 5.0, 8.0, 2.0])
    assert score("wanda", weight, norms=norms).tolist() == [[4.0, -1.0, 8.0, 6.0], [1.0, 5.0, 8.0, 2.0]]
    assert rows_kept("wanda", weight, 2, norms=norms).int().tolist() == [[0, 0, 1, 1], [0, 1, 1, 0]]


def test_wanda_does_not_move_when_inputs_are_rescaled_and_magnitude_does():
    weight, norms, _ = samples()
    factors = torch.logspace(-2, 2, 8, base=2, dtype=torch.float64)  # the same function: inputs times, columns divided
    rescaled = rows_kept("wanda", weight / factors, 4, norms=norms * factors)
    assert torch.equal(rows_kept("wanda", weight, 4, norms=norms), rescaled)
    assert not torch.equal(rows_kept("magnitude", weight, 4), rows_kept("magnitude", weight / factors, 4))


def test_with_equal_norms_wanda_is_magnitude_inside_rows():
    weight, norms, _ = samples()
    assert torch.equal(rows_kept("wanda", weight, 3, norms=torch.full_like(norms, 0.7)), rows_kept("magnitude", weight, 3))


def test_with_a_diagonal_hessian_wanda_is_optimal_brain_damage():
    """X^T X = diag(h): the saliency of w_ij is w_ij^2 h_j / 2."""
    weight, norms, _ = samples()
    x = torch.diag(norms)  # one token per input
    hessian = x.T @ x
    saliency = weight.square() * hessian.diagonal() / 2
    found = rows_kept("wanda", weight, 4, norms=x.square().sum(0).sqrt())
    assert torch.equal(found, keep_mask_grouped(saliency, 4))


@pytest.mark.parametrize("name", ["wanda", "gblm", "gradient-magnitude"])
def test_ties_and_zeros_leave_every_row_its_exact_count(name):
    weight, norms, g = torch.zeros(4, 6), torch.tensor([1.0, 1.0, 0.0, 2.0, 2.0, 2.0]), torch.ones(4, 6)
    weight[0], weight[1, 3:] = 1.0, -2.0
    statistics = {"norms": norms, "gradient-magnitude": g}
    for remove in range(7):
        kept = rows_kept(name, weight, remove, **{n: statistics[n] for n in find_criterion(name).needs})
        assert (~kept).sum(1).tolist() == [remove] * 4
        if remove >= 3:
            assert not kept[1, :3].any()  # what is zero already goes first


def test_zero_weights_go_before_those_of_a_dead_input():
    weight, norms = torch.tensor([[5.0, 0.0, 1.0]]), torch.tensor([0.0, 3.0, 1.0])
    assert rows_kept("wanda", weight, 1, norms=norms).tolist() == [[True, False, True]]
    assert rows_kept("wanda", weight, 2, norms=norms).tolist() == [[False, False, True]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_weights_are_multiplied_as_float32(dtype):
    weight, norms = torch.tensor([[1e-3, 2e-3, 3e-3]], dtype=dtype), torch.full((3,), 1e-6)
    scores = score("wanda", weight, norms=norms)
    assert scores.dtype == torch.float32 and 0 < scores[0, 0] < scores[0, 1] < scores[0, 2]


def test_norms_lie_along_the_input_dimension_of_every_layout():
    weight, norms, _ = samples(4, 6)
    plain = score("wanda", weight, norms=norms)
    assert torch.equal(score("wanda", weight.T, norms=norms[:, None]).T, plain)  # [in, out]
    experts, own = torch.stack([weight, -weight]), torch.stack([norms, 2 * norms])
    assert torch.equal(score("wanda", experts, norms=own[:, None]), torch.stack([plain, 2 * plain]))
    filters = weight.reshape(4, 3, 1, 2)  # an input is an entry of the patch, channel by channel
    assert torch.equal(score("wanda", filters, norms=norms.reshape(1, 3, 1, 2)).reshape(4, 6), plain)


def test_gblm_by_eye():
    weight, norms, g = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([3.0, 1.0, 9.0]), torch.tensor([[0.01, 0.05, 1.0]])
    statistics = {"norms": norms, "gradient-magnitude": g}
    assert find_criterion("gblm").score(weight, statistics)[0].tolist() == pytest.approx([3 + 1, 2 + 10, -1 / 1])
    assert find_criterion("gblm", scale=10).score(weight, statistics)[0].tolist() == pytest.approx([3 + 0.1, 2 + 1, -1])
    assert find_criterion("gradient-magnitude").score(weight, statistics)[0].tolist() == pytest.approx([0.01, 0.1, -1])


def test_gblm_without_the_gradient_term_is_wanda_and_without_norms_magnitude():
    weight, norms, g = samples()
    statistics = {"norms": norms, "gradient-magnitude": g.abs().sum(0)}
    none = find_criterion("gblm", scale=0)
    assert torch.equal(none.score(weight, statistics), score("wanda", weight, norms=norms))
    assert torch.equal(none.score(weight, {**statistics, "norms": torch.ones(8).double()}), weight.abs())


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gblm_does_not_care_for_the_order_or_the_signs_of_samples(norm):
    weight, norms, g = samples()
    criterion = find_criterion("gblm", norm=norm)
    (name,) = criterion.needs - {"norms"}

    def of(gradients):
        total = gradients.abs().sum(0) if norm == "l1" else gradients.square().sum(0).sqrt()
        return criterion.score(weight, {"norms": norms, name: total})

    signs = torch.tensor([1.0, -1, -1, 1, -1, 1], dtype=torch.float64)[:, None, None]
    assert torch.allclose(of(g.flip(0)), of(g), rtol=1e-14)
    assert torch.equal(of(g * signs), of(g))
    assert not torch.allclose(of(g.mean(0, keepdim=True)), of(g))  # magnitudes are added, not averages


def test_the_two_norms_bound_each_other():
    """l2 <= l1 <= sqrt(n) l2, entry by entry, and so for the scores of the control."""
    weight, _, g = samples()
    one, two = find_criterion("gradient-magnitude"), find_criterion("gradient-magnitude", norm="l2")
    l1 = one.score(weight, {"gradient-magnitude": g.abs().sum(0)})
    l2 = two.score(weight, {"gradient-magnitude-l2": g.square().sum(0).sqrt()})
    assert (l2 <= l1).all() and (l1 <= math.sqrt(len(g)) * l2 * (1 + 1e-14)).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scael": 2.0}, r"has no option 'scael'; its options are scale, norm; did you mean 'scale'"),
        ({"norm": "l3"}, r"norm='l3': .*'l1' or 'l2'"),
        ({"scale": -1}, r"scale=-1: .*0 or more"),
        ({"scale": math.inf}, r"scale=inf"),
    ],
)
def test_options_that_cannot_work_are_quoted(options, message):
    with pytest.raises(BadInput, match=message):
        find_criterion("gblm", **options)


def test_a_criterion_without_options_says_so():
    with pytest.raises(BadInput, match=r"criterion='wanda' has no option 'scale'; it has none"):
        find_criterion("wanda", scale=2)
