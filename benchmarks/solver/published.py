"""SparseGPT's algorithm as published (Frantar & Alistarh 2023, algorithm 1), written down straightforwardly: the yardstick.

The inverse's Cholesky factor by factor, inverse and factor; then one rank-one update of the block per column, and one product
per block for what lies to the right.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inverse_factor", "prune"]


def inverse_factor(gram: Tensor, dampening: float = 0.01) -> Tensor:
    """``U`` upper triangular with ``U^T U = H^-1``, H the dampened ``gram``."""
    h = gram.clone()
    h.diagonal().add_(dampening * gram.diagonal().mean())
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)


def prune(weight: Tensor, u: Tensor, sparsity: float | None = None, mask: Tensor | None = None, block: int = 128) -> Tensor:
    """The pruned and updated weight: by ``mask`` (True = kept), or by ``sparsity`` of every column block."""
    w = weight.clone()
    for start in range(0, w.shape[1], block):
        stop = min(start + block, w.shape[1])
        part, inside = w[:, start:stop].clone(), u[start:stop, start:stop]
        gone = (
            ~mask[:, start:stop] if mask is not None else _lowest(part.square() / inside.diagonal().square(), sparsity or 0.0)
        )
        pruned, errors = torch.zeros_like(part), torch.zeros_like(part)
        for i in range(stop - start):
            column = part[:, i]
            kept = column.masked_fill(gone[:, i], 0)
            error = (column - kept) / inside[i, i]
            part[:, i:] -= error.unsqueeze(1).matmul(inside[i, i:].unsqueeze(0))
            pruned[:, i], errors[:, i] = kept, error
        w[:, start:stop] = pruned
        w[:, stop:] -= errors.matmul(u[start:stop, stop:])
    return w


def _lowest(scores: Tensor, sparsity: float) -> Tensor:
    ranked = torch.sort(scores.flatten())[0]
    return scores < ranked[int(scores.numel() * sparsity)]
