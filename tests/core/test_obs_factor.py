"""The factor of a Hessian, against inverses and torch's own Cholesky."""

import pytest
import torch

from secateurs.core import obs_factor
from secateurs.core.obs_factor import NotPositiveDefinite, factorise
from secateurs.errors import BadInput, NotFinite


def gram(n, seed=0, tokens=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens or 2 * n, n, generator=generator, dtype=torch.float64) + 0.5
    return (x.T @ x).to(dtype)


def dampened(g, share=0.01):
    return g + share * g.diagonal().mean() * torch.eye(len(g), dtype=g.dtype)


@pytest.mark.parametrize("n", [1, 2, 8, 127, 128, 129, 300])
def test_the_factor_and_the_published_one(n):
    g = gram(n)
    factor, h = factorise(g), dampened(g)
    assert torch.allclose(factor.unit * factor.scale.square() @ factor.unit.T, h, rtol=1e-10)
    assert torch.equal(factor.unit, factor.unit.triu()) and (factor.unit.diagonal() == 1).all()
    u = factor.upper()
    assert torch.allclose(u.T @ u @ h, torch.eye(n, dtype=torch.float64), atol=1e-8)  # U^T U = H^-1
    assert torch.allclose(u, torch.linalg.cholesky(torch.linalg.inv(h), upper=True), rtol=1e-6, atol=1e-12)
    assert torch.allclose(factor.scale, 1 / u.diagonal(), rtol=1e-12)


def test_the_squared_scale_is_what_the_inverse_of_the_rest_says():
    """U_ii^2 is entry (0, 0) of the inverse of H[i:, i:]."""
    g = gram(8)
    factor, h = factorise(g), dampened(g)
    assert torch.allclose(factor.scale, torch.stack([torch.linalg.inv(h[i:, i:])[0, 0] ** -0.5 for i in range(8)]))


def test_only_the_upper_triangle_is_read_and_the_input_is_left_alone():
    g = gram(200)
    before, expected = g.clone(), factorise(g)
    assert torch.equal(g, before)
    found = factorise(g.triu() + torch.ones_like(g).tril(-1))
    assert torch.equal(found.unit, expected.unit)


def test_overwriting_gives_the_same_in_the_same_memory():
    g = gram(200, dtype=torch.float32)
    expected = factorise(g)
    found = factorise(g, overwrite=True)
    assert found.unit.data_ptr() == g.data_ptr() and torch.equal(found.unit, expected.unit)


def test_dtypes():
    exact = factorise(gram(150))
    for dtype in (torch.float32, torch.bfloat16):
        assert factorise(gram(150, dtype=dtype)).unit.dtype == torch.float32
    assert factorise(gram(150, dtype=torch.float32), dtype=torch.float64).unit.dtype == torch.float64
    assert torch.allclose(factorise(gram(150, dtype=torch.float32)).unit.double(), exact.unit, atol=1e-4)


def test_dead_inputs_take_the_mean_of_the_others():
    g = gram(4)
    g[1] = g[:, 1] = 0.0
    factor, mean = factorise(g, 0.0), g.diagonal()[[0, 2, 3]].mean()
    assert factor.dead.tolist() == [False, True, False, False]
    assert factor.scale[1].item() == pytest.approx(mean.sqrt().item())
    assert torch.equal(factor.unit[1], torch.eye(4, dtype=torch.float64)[1])


def test_too_few_tokens_fail_by_name_without_dampening():
    g = torch.zeros(300, 300, dtype=torch.float64)
    g[:] = 1.0  # one token
    with pytest.raises(NotPositiveDefinite, match=r"'h\.0\.fc', 300 x 300, is not positive definite with dampening=0; try "
                                                  r"dampening=0\.1.*calibrate with more tokens"):  # fmt: skip
        factorise(g, 0.0, name="h.0.fc")
    assert factorise(g, 0.01).dampening == 0.01


def test_increasing_is_asked_for_and_reported():
    g = torch.eye(4, dtype=torch.float64)
    g[0, 3] = g[3, 0] = 1.05  # an eigenvalue of -0.05
    with pytest.raises(NotPositiveDefinite, match=r"dampening=0\.01; try dampening=0\.1, or let it increase"):
        factorise(g)
    found = factorise(g, increase=True, overwrite=True)
    assert found.dampening == pytest.approx(0.1)
    assert torch.allclose(found.unit * found.scale.square() @ found.unit.T, dampened(g, 0.1))
    g[0, 3] = g[3, 0] = 2.5
    with pytest.raises(NotPositiveDefinite, match="dampening=1; smaller ones were tried, and calibrate"):
        factorise(g, increase=True)


def test_a_failure_in_any_block_is_seen():
    for i in (0, 130, 299):
        g = gram(300)
        g[i, i] = -1.0
        with pytest.raises(NotPositiveDefinite):
            factorise(g, 0.0)


def test_bad_input_is_quoted():
    with pytest.raises(NotFinite, match="'Hessian of fc' has 1 non-finite"):
        factorise(torch.tensor([[1.0, 0.0], [0.0, float("nan")]]), name="fc")
    with pytest.raises(BadInput, match=r"Hessian of 'fc' has shape \(2, 3\)"):
        factorise(torch.ones(2, 3), name="fc")
    with pytest.raises(BadInput, match="no calibration data reached 'fc': all of its 3 inputs were zero"):
        factorise(torch.zeros(3, 3), name="fc")
    for share in (-0.1, float("nan"), "0.01", True):
        with pytest.raises(BadInput, match="dampening="):
            factorise(torch.eye(2), share)


def test_leaf_size_is_immaterial(monkeypatch):
    g = gram(100)
    expected = factorise(g)
    monkeypatch.setattr(obs_factor, "_LEAF", 3)
    assert torch.allclose(factorise(g).unit, expected.unit, rtol=1e-9, atol=1e-12)
