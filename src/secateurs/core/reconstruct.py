"""Take whole blocks of input columns out of a layer and let the columns that stay make up for them, in closed form.

For a layer ``Y = W X`` with Hessian ``H = X X^T + lambda I`` (:func:`damped`), a convolution's columns being those of its
unfolded weight, and ``c`` the columns of one channel (:func:`columns_of`):

- removing the block and refitting the rest costs ``tr(W_c [(H^-1)_cc]^-1 W_c^T)`` of squared output error
  (:func:`block_costs`) and changes the weight to ``W - W_c [(H^-1)_cc]^-1 (H^-1)_c:`` (:func:`eliminate`);
- one block after the other in any order, all at once, and the least-squares refit ``W_K = W H_:K (H_KK)^-1`` on the kept
  columns (:func:`refit`) give the same weight;
- where what comes before is pruned already, the outputs of the dense layer are fitted from the inputs that are left
  (:func:`refit_from`).

The block form of optimal brain surgery (Hassibi & Stork 1993) as used by Frantar & Alistarh 2022, "Optimal Brain Compression",
section 4, and for coupled channels by OBSPA (Wang et al. 2024, "Structurally Prune Anything"). Pure functions of matrices: a
Gram matrix is summed over calibration data elsewhere. Grouped convolutions are one layer per group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateurs.core.obs_factor import NotPositiveDefinite
from secateurs.core.select import check_finite
from secateurs.errors import BadInput

__all__ = ["block_costs", "columns_of", "damped", "eliminate", "inverse", "refit", "refit_from"]


def columns_of(index: Tensor, area: int = 1) -> Tensor:
    """The columns ``[size, per * area]`` that belong to every index of a group, in a weight flattened to ``[out, in]``.

    Args:
        index: int64 ``[size, per]``: positions of every index along the input dimension (``per`` above 1 behind a flatten).
        area: entries of a convolution's kernel; channel p owns the columns ``p * area`` to ``(p + 1) * area - 1``.
    """
    return (index[..., None] * area + torch.arange(area, device=index.device)).flatten(1)


@torch.no_grad()
def damped(gram: Tensor, dampening: float = 0.01, *, name: str = "weight") -> Tensor:
    """``gram + dampening * mean(diag(gram)) * I`` for a Gram matrix ``X X^T`` ``[in, in]`` of a layer's inputs.

    Raises:
        NotFinite: an entry is NaN or infinite.
        BadInput: it is not square, the dampening is negative, or every input was zero.
    """
    if gram.dim() != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
        raise BadInput(f"the Gram matrix of {name!r} has shape {tuple(gram.shape)}; it must be square, inputs by inputs")
    if not 0 <= dampening < float("inf"):
        raise BadInput(f"dampening={dampening!r} of {name!r}: a share of the mean diagonal, 0 or more")
    check_finite(gram, name)
    mean = gram.diagonal().mean()
    if mean <= 0:
        raise BadInput(f"every input of {name!r} was zero on the calibration data: nothing can be fitted to it")
    return gram + torch.diag_embed((dampening * mean).expand(len(gram)))


@torch.no_grad()
def inverse(hessian: Tensor, *, name: str = "weight") -> Tensor:
    """``H^-1`` ``[in, in]``, symmetric, by Cholesky.

    Raises:
        NotPositiveDefinite: naming the layer. There is no fallback.
    """
    found = torch.cholesky_inverse(_cholesky(hessian, name))
    return (found + found.mT) / 2


@torch.no_grad()
def block_costs(weight: Tensor, inverted: Tensor, blocks: Tensor, *, name: str = "weight") -> Tensor:
    """What every block would cost alone: ``tr(W_c [(H^-1)_cc]^-1 W_c^T)``, ``[size]``.

    That is the least increase of ``||Y - Y'||^2`` (with the dampening's share) when the block goes and the other columns are
    refitted. A group's score is the sum over its consumers.

    Args:
        weight: ``[out, in]``.
        inverted: ``H^-1`` ``[in, in]``.
        blocks: int64 ``[size, per]``, the columns of every block (:func:`columns_of`), none twice.

    Raises:
        BadInput: the shapes do not fit.
        NotPositiveDefinite: naming the layer.
    """
    _check(weight, inverted, blocks, name)
    lower = _cholesky(inverted[blocks[:, :, None], blocks[:, None, :]], name)
    rows = weight.to(inverted.dtype)[:, blocks].permute(1, 2, 0)  # [size, per, out]
    return torch.linalg.solve_triangular(lower, rows, upper=False).square().sum((1, 2))


@torch.no_grad()
def eliminate(weight: Tensor, inverted: Tensor, columns: Tensor, *, name: str = "weight") -> tuple[Tensor, Tensor]:
    """Remove ``columns`` (int64, any shape, none twice); the others make up for them. ``(weight, H^-1)`` without them.

    ``W - W_P [(H^-1)_PP]^-1 (H^-1)_P:``, and the same of ``H^-1``, which is then the inverse over the columns that are left,
    zero in those that went: what goes one after the other ends where it would all at once. Shapes and dtypes stay; removed
    columns are exactly zero. Call it with the columns of several blocks, or in turn with what the last call returned.

    Raises:
        BadInput: the shapes do not fit.
        NotPositiveDefinite: naming the layer; columns that went before have no inverse left.
    """
    gone = columns.reshape(-1)
    _check(weight, inverted, gone[None], name)
    lower = _cholesky(inverted[gone][:, gone], name)
    spread = torch.cholesky_solve(inverted[gone], lower)  # [(H^-1)_PP]^-1 (H^-1)_P:
    old = weight.to(inverted.dtype)
    new = old - old[:, gone] @ spread
    left = inverted - inverted[:, gone] @ spread
    new[:, gone], left[gone], left[:, gone] = 0, 0, 0
    return new.to(weight.dtype), (left + left.mT) / 2


@torch.no_grad()
def refit(weight: Tensor, hessian: Tensor, kept: Tensor, *, name: str = "weight") -> Tensor:
    """The least-squares weight ``[out, kept]`` on the kept columns alone: ``W H_:K (H_KK)^-1``.

    The columns of :func:`eliminate` that stay, found without the inverse: quicker where much goes at once.

    Args:
        weight: ``[out, in]``.
        hessian: ``[in, in]``, dampened.
        kept: int64 ``[kept]``, the columns that stay.

    Raises:
        BadInput: the shapes do not fit.
        NotPositiveDefinite: naming the layer.
    """
    _check(weight, hessian, kept[None], name)
    lower = _cholesky(hessian[kept][:, kept], name)
    products = weight.to(hessian.dtype) @ hessian[:, kept]
    return torch.cholesky_solve(products.mT, lower).mT.to(weight.dtype).contiguous()


@torch.no_grad()
def refit_from(
    weight: Tensor, cross: Tensor, gram: Tensor, dampening: float = 0.01, *, prior: Tensor | None = None, name: str = "weight"
) -> Tensor:
    """The weight ``[out, kept]`` that best gives the dense layer's outputs from the inputs the pruned network has left.

    ``W X_d X_p^T (X_p X_p^T + lambda I)^-1``, ``lambda = dampening * mean(diag(X_p X_p^T))``. The dampening draws the result
    towards ``prior``, by default zero; with ``prior = W_K`` towards the old weights, so that a fit without data to speak of
    changes nothing, and with equal inputs it is :func:`refit` with the dampened Hessian.

    Args:
        weight: the dense one, ``[out, in]``.
        cross: ``X_d X_p^T`` ``[in, kept]``, dense inputs by those of the pruned network, over the same calibration data.
        gram: ``X_p X_p^T`` ``[kept, kept]``.
        dampening: a share of the mean diagonal of ``gram``.
        prior: ``[out, kept]``.
        name: the layer's, for messages.

    Raises:
        NotFinite: an entry of ``gram`` or ``cross`` is NaN or infinite.
        BadInput: the shapes do not fit, or nothing came in.
        NotPositiveDefinite: naming the layer.
    """
    if weight.dim() != 2 or cross.shape != (weight.shape[1], len(gram)):
        raise BadInput(f"{name!r} has shape {tuple(weight.shape)}, its inputs' products {tuple(cross.shape)} and "
                       f"{tuple(gram.shape)}; they must be [out, in], [in, kept] and [kept, kept]")  # fmt: skip
    check_finite(cross, name)
    hessian = damped(gram, dampening, name=name)
    products = weight.to(gram.dtype) @ cross
    if prior is not None:
        if prior.shape != products.shape:
            raise BadInput(f"prior of {name!r} has shape {tuple(prior.shape)}; it must be {tuple(products.shape)}")
        products = products + (hessian - gram).diagonal() * prior.to(gram.dtype)
    return torch.cholesky_solve(products.mT, _cholesky(hessian, name)).mT.to(weight.dtype).contiguous()


def _cholesky(matrix: Tensor, name: str) -> Tensor:
    """Lower factors of one matrix or a batch."""
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed.any()):
        n = matrix.shape[-1]
        raise NotPositiveDefinite(f"the Hessian of {name!r} has a part, {n} x {n}, that is not positive definite; calibrate "
                                  "with more inputs, or dampen more (dampening=0.1)")  # fmt: skip
    return lower


def _check(weight: Tensor, square: Tensor, blocks: Tensor, name: str) -> None:
    if weight.dim() != 2 or square.shape != (weight.shape[1], weight.shape[1]):
        raise BadInput(f"{name!r} has shape {tuple(weight.shape)}, its Hessian {tuple(square.shape)}; they must be [out, in] "
                       "and [in, in]")  # fmt: skip
    if blocks.dim() != 2 or blocks.dtype != torch.int64:
        raise BadInput(f"the columns of {name!r} are {blocks.dtype} {tuple(blocks.shape)}; they must be int64 [size, per]")
    flat = blocks.flatten()
    inside = not flat.numel() or (int(flat.min()) >= 0 and int(flat.max()) < weight.shape[1])
    if not inside or len(flat.unique()) < len(flat):
        raise BadInput(f"the columns of {name!r} must be from 0 to {weight.shape[1] - 1}, each at most once")
