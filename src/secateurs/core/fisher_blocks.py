"""A Fisher matrix of short blocks, each inverted as a matrix; the gradients pass by and none is kept.

N steps of Sherman and Morrison's formula give the inverse of a sum of N outer products. Here the sum is made first and inverted
once, which is the same matrix for half the work and with fewer roundings; all of it is in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from secateurs.core.fisher import Estimate, check_positive
from secateurs.core.obs_factor import NotPositiveDefinite

__all__ = ["BlockSums", "Blocks"]

_TOGETHER = 16  # gradients added in one product
_ENTRIES = 1 << 22  # of the blocks that are worked on together: 32 MB


class BlockSums:
    """Adds up the outer products of gradients, block by block: 8 P c bytes for blocks of c of P weights."""

    def __init__(self, sizes: Sequence[int], estimate: Estimate, dtype: torch.dtype, device: torch.device):
        self._sizes, self._estimate, self._seen, self._held = list(sizes), estimate, 0, 0
        self._rows = torch.empty(min(_TOGETHER, estimate.gradients), sum(sizes), dtype=dtype, device=device)
        widths = [min(estimate.block, size) for size in sizes]
        self._sums = [torch.zeros(-(-size // c), c, c, dtype=torch.float64, device=device)
                      for size, c in zip(sizes, widths, strict=True)]  # fmt: skip

    def add(self, gradient: Tensor) -> None:
        """One more of them, ``[P]``."""
        self._rows[self._held] = gradient
        self._held, self._seen = self._held + 1, self._seen + 1
        if self._held == len(self._rows):
            self._add_up()

    def inverse(self) -> Blocks:
        """Of what was added; nothing can be added afterwards, since the blocks themselves are inverted."""
        self._add_up()
        for blocks in self._sums:
            for part in _parts(blocks):
                _invert(part, self._seen, self._estimate.damping)
        return Blocks(self._sizes, self._sums, self._estimate.damping)

    def _add_up(self) -> None:
        for blocks, rows in zip(self._sums, self._rows[: self._held].split(self._sizes, 1), strict=True):
            step = max(1, _ENTRIES // (blocks.shape[1] * len(self._rows)))
            for at in range(0, len(blocks), step):
                here = rows[:, at * blocks.shape[1] : (at + step) * blocks.shape[1]]
                pieces = _cut(here.double(), blocks.shape[1]).transpose(0, 1).contiguous()  # [blocks, rows, c]
                blocks[at : at + step].baddbmm_(pieces.transpose(1, 2), pieces)
        self._held = 0


class Blocks:
    """The inverse: of every tensor ``[blocks, c, c]``, the last block padded with weights that no gradient reaches."""

    def __init__(self, sizes: Sequence[int], blocks: Sequence[Tensor], damping: float):
        self._sizes, self._blocks = list(sizes), list(blocks)
        self.diagonal = torch.cat([b.diagonal(dim1=1, dim2=2).reshape(-1)[:n] for b, n in zip(blocks, sizes, strict=True)])
        check_positive(self.diagonal, damping)

    def product(self, x: Tensor) -> Tensor:
        """``F^-1 x``, in float64."""
        found = [torch.bmm(blocks, _cut(part.double(), blocks.shape[1])[..., None]).reshape(-1)[: len(part)]
                 for blocks, part in zip(self._blocks, x.split(self._sizes), strict=True)]  # fmt: skip
        return torch.cat(found)

    def pinned(self, weight: Tensor, removed: Tensor) -> Tensor:
        """As the protocol says, in float64: in the place of ``F^-1[Q, Q]`` stands a block that is the identity elsewhere."""
        alone = torch.where(removed, weight, torch.zeros_like(weight)).double()
        found = torch.empty_like(alone)
        there = zip(self._blocks, alone.split(self._sizes), removed.split(self._sizes), found.split(self._sizes), strict=True)
        for blocks, part, gone, out in there:
            values, mask = _cut(part, blocks.shape[1]), _cut(gone, blocks.shape[1])
            pieces = [_pinned(*some) for some in zip(_parts(blocks), _like(values, blocks), _like(mask, blocks), strict=True)]
            out.copy_(torch.cat(pieces).reshape(-1)[: len(part)])
        return found


def _pinned(blocks: Tensor, values: Tensor, gone: Tensor) -> Tensor:
    matrix = blocks * (gone[:, :, None] & gone[:, None, :])
    matrix.diagonal(dim1=1, dim2=2).add_((~gone).to(matrix.dtype))
    solved = torch.cholesky_solve(values[..., None], torch.linalg.cholesky(matrix))
    return -torch.bmm(blocks, solved)[..., 0]


def _invert(blocks: Tensor, gradients: int, damping: float) -> None:
    """In place, from the sums of outer products."""
    blocks.div_(gradients)
    blocks.diagonal(dim1=1, dim2=2).add_(damping)
    factor, failed = torch.linalg.cholesky_ex(blocks)
    if bool(failed.any()):
        raise NotPositiveDefinite(f"{int(failed.count_nonzero())} of {len(blocks)} blocks of the Fisher matrix have no "
                                  f"Cholesky factor with damping={damping:g}: give a larger one")  # fmt: skip
    torch.cholesky_inverse(factor, out=blocks)


def _cut(values: Tensor, width: int) -> Tensor:
    """The last dimension in pieces of ``width``, the last one filled up with zeros."""
    missing = -values.shape[-1] % width
    return torch.nn.functional.pad(values, (0, missing)).unflatten(-1, (-1, width))


def _parts(blocks: Tensor) -> Iterator[Tensor]:
    """A few blocks at a time."""
    yield from blocks.split(max(1, _ENTRIES // blocks[0].numel()))


def _like(values: Tensor, blocks: Tensor) -> Iterator[Tensor]:
    """``values``, a row per block, as many at a time as of the blocks."""
    yield from values.split(max(1, _ENTRIES // blocks[0].numel()))
