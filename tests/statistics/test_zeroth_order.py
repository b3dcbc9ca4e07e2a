"""The loss's dependence on a tensor, from forward passes alone."""

import copy
import math

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, NotFinite
from secateurs.statistics.zeroth_order import by_magnitude, by_square, first_order, zeroth_order


class Linear(nn.Module):
    """Its loss is a linear function of both weights."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(5, dtype=torch.float64))


SLOPE_A = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], dtype=torch.float64)


def linear_loss(model, batch):
    return (model.a * SLOPE_A).sum() * batch + (model.b * 0.1).sum()


def named(model):
    return dict(model.named_parameters())


def test_it_converges_to_the_gradient_norm():
    """E |<g, z>| = sqrt(2 / pi) ||g||, at a relative spread of 0.76 per draw."""
    model, n = Linear(), 600
    found = zeroth_order(model, named(model), [1.0] * n, linear_loss)
    for name, norm in (("a", SLOPE_A.norm().item()), ("b", 0.1 * math.sqrt(5))):
        assert found[name] / n == pytest.approx(math.sqrt(2 / math.pi) * norm, rel=4 * 0.76 / math.sqrt(n))
    more = zeroth_order(model, {"a": model.a}, [1.0] * 2, linear_loss, draws=300)
    assert more["a"] / 2 == pytest.approx(math.sqrt(2 / math.pi) * SLOPE_A.norm().item(), rel=4 * 0.76 / math.sqrt(n))


def test_the_sum_over_batches_scales_with_the_loss_and_not_with_eps():
    model = Linear()
    one = zeroth_order(model, named(model), [1.0], linear_loss)
    assert zeroth_order(model, named(model), [3.0], linear_loss)["a"] == pytest.approx(3 * one["a"])
    assert zeroth_order(model, named(model), [1.0], linear_loss, eps=0.5)["a"] == pytest.approx(one["a"])
    two = zeroth_order(model, named(model), [1.0, 1.0], linear_loss)
    assert two["a"] > one["a"] and two["a"] != pytest.approx(2 * one["a"])  # every batch has noise of its own


def test_the_seed_and_the_name_decide_and_the_other_tensors_do_not():
    model = Linear()
    both = zeroth_order(model, named(model), [1.0, 2.0], linear_loss)
    torch.rand(7)
    assert zeroth_order(model, {"b": model.b}, [1.0, 2.0], linear_loss) == {"b": both["b"]}
    assert zeroth_order(model, named(model), [1.0, 2.0], linear_loss, seed=1)["a"] != both["a"]
    assert list(both) == ["a", "b"]


def network(dtype=torch.float32):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2)]
    return nn.Sequential(*layers).to(dtype).train()


def squared(model, batch):
    return model(batch).square().mean()


BATCH = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_comes_back_bit_for_bit(dtype):
    model = network(dtype)
    model[1].eval()
    before, where = copy.deepcopy(model.state_dict()), {n: p.data_ptr() for n, p in model.named_parameters()}
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    found = zeroth_order(model, named(model), [BATCH, BATCH], squared)
    assert all(math.isfinite(v) and v > 0 for n, v in found.items() if not n.startswith("1."))
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == where
    assert [m.training for m in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_it_comes_back_after_an_error_too():
    model = network(torch.bfloat16)
    before, calls = copy.deepcopy(model.state_dict()), []

    def broken(model, batch):
        calls.append(1)
        return squared(model, batch) if len(calls) < 4 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        zeroth_order(model, named(model), [BATCH], broken)
    assert all(torch.equal(v, before[n]) and v.dtype == before[n].dtype for n, v in model.state_dict().items())
    assert model.training


def test_both_losses_of_a_pair_see_the_same_randomness():
    """A loss that draws (and ignores the weights) does not depend on them."""
    model = Linear()
    assert zeroth_order(model, {"a": model.a}, [1.0], lambda model, batch: torch.rand(())) == {"a": 0.0}


def test_sixteen_bit_weights_are_moved_by_less_than_their_rounding():
    """Beside a weight of 100, eps = 0.001 is lost in bfloat16; in float32 the slope of 1 is seen."""
    model = nn.Linear(1, 1, bias=False).bfloat16()
    model.weight.data.fill_(100.0)

    def loss(model, batch):
        assert model.weight.dtype == torch.float32
        return (model.weight - 100).sum()

    (z,) = zeroth_order(model, named(model), [None], loss, eps=1e-3).values()
    assert z == pytest.approx(zeroth_order(model, named(model), [None], loss, eps=1.0)["weight"], rel=0.02) and z > 0


def test_a_shared_tensor_is_moved_once_under_its_first_name():
    model = nn.ModuleDict({"text": nn.Linear(3, 3, bias=False), "vision": nn.Linear(3, 3, bias=False)})
    model["vision"].weight = model["text"].weight
    seen = []
    parameters = {"text.weight": model["text"].weight, "vision.weight": model["vision"].weight}
    batch = torch.ones(1, 3)
    found = zeroth_order(model, parameters, [batch], lambda m, x: m["text"](m["vision"](x)).sum(), tell=seen.append)
    assert list(found) == seen == ["text.weight"]


def test_it_ranks_layers_as_gradients_do():
    """Five layers whose gradients differ by factors of three, sixteen batches."""
    torch.manual_seed(0)
    model = nn.ParameterList([nn.Parameter(torch.randn(20)) for _ in range(5)])
    factors = [3.0, 81.0, 1.0, 27.0, 9.0]
    found = zeroth_order(
        model, named(model), [0] * 16, lambda m, _: sum(f * p.sin().sum() for f, p in zip(factors, m, strict=True))
    )
    assert sorted(range(5), key=lambda i: found[str(i)]) == sorted(range(5), key=factors.__getitem__)


def test_variants_by_eye():
    w, g = torch.tensor([[1.0, -2.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.5], [9.0, 0.1]])
    assert by_magnitude(2.0, w) == 12.0
    assert by_square(2.0, w) == 56.0
    assert first_order(w, g) == pytest.approx(1 + 1 + 0 + 0.3)
    assert first_order(w, g, square=True) == pytest.approx(1 + 2 + 0 + 0.9)


def test_bad_input_is_quoted():
    model = Linear()
    with pytest.raises(BadInput, match="give a list of them, not an iterator"):
        zeroth_order(model, named(model), iter([1.0]), linear_loss)
    with pytest.raises(BadInput, match="calibration gave no batch"):
        zeroth_order(model, named(model), [], linear_loss)
    for settings in ({"eps": 0}, {"eps": math.nan}, {"draws": 0}, {"draws": True}):
        with pytest.raises(BadInput, match=next(iter(settings))):
            zeroth_order(model, named(model), [1.0], linear_loss, **settings)
    with pytest.raises(NotFinite, match="the loss near 'a' is nan"):
        zeroth_order(model, named(model), [math.nan], linear_loss)
