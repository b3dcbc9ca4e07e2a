"""Structures: what may leave together.

A structure lays the scores of one weight out as ranked groups of units, ``[groups, units]``, and turns the units kept back
into a mask of the weight. Units of one row are ranked against each other; how many leave is not its business.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateurs.core.layout import Layout
from secateurs.core.select import keep_mask_grouped
from secateurs.errors import BadInput, near

__all__ = ["NM", "Block", "Element", "PerRow", "Rows", "Sheltered", "Structure", "parse_structure"]


class Structure(Protocol):
    """The contract: a pair of layouts that undo each other, and what shapes they take."""

    @property
    def name(self) -> str:
        """The text that :func:`parse_structure` reads back."""

    @property
    def share(self) -> float | None:
        """The sparsity the structure itself fixes (0.5 for 2:4), or None."""

    @property
    def grouped(self) -> bool:
        """Whether one weight holds several ranked groups, each losing the same number."""

    def check(self, name: str, shape: torch.Size, layout: Layout) -> None:
        """Raise :class:`BadInput` naming the weight if the structure cannot be laid over ``shape``."""

    def to_groups(self, scores: Tensor, layout: Layout) -> Tensor:
        """Unit scores ``[groups, units]`` of the entry scores."""

    def to_mask(self, kept: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """The boolean mask of ``shape`` that keeps the units ``kept`` ``[groups, units]``."""

    def units(self, shape: torch.Size, layout: Layout) -> int:
        """How many units the weight has."""

    def unit_size(self, shape: torch.Size, layout: Layout) -> int:
        """Weights in one unit (in a whole one, where the edge of a tensor cuts some short)."""


def _order(ndim: int, layout: Layout, last: str) -> list[int]:
    """Dimensions as [stack..., out, in, kernel...] (``last="kernel"``) or [stack..., out, kernel..., in] (``last="in"``).

    Dimensions before both out and in stack independent matrices (experts); those behind are a convolution's kernel.
    """
    stack = list(range(min(layout.out_dim, layout.in_dim)))
    kernel = [d for d in range(len(stack), ndim) if d not in (layout.out_dim, layout.in_dim)]
    middle = [layout.in_dim, *kernel] if last == "kernel" else [*kernel, layout.in_dim]
    return [*stack, layout.out_dim, *middle]


def _back(flat: Tensor, shape: torch.Size, order: list[int]) -> Tensor:
    """Undo ``permute(order)`` on a tensor flattened after it."""
    inverse = [order.index(d) for d in range(len(order))]
    return flat.reshape([shape[d] for d in order]).permute(inverse).contiguous()


def _stack(shape: torch.Size, layout: Layout) -> int:
    """How many independent matrices lie in the tensor."""
    return math.prod(shape[: min(layout.out_dim, layout.in_dim)])


def _rows(shape: torch.Size, layout: Layout) -> int:
    """Output rows of all stacked matrices together."""
    return _stack(shape, layout) * shape[layout.out_dim]


@dataclass(frozen=True)
class Element:
    """Single weights, the whole tensor one group (unstructured pruning)."""

    name: str = "element"
    share: None = None
    grouped: bool = False

    def check(self, name: str, shape: torch.Size, layout: Layout) -> None:
        """Any shape will do."""

    def to_groups(self, scores: Tensor, layout: Layout) -> Tensor:
        """``[1, numel]``."""
        return scores.reshape(1, -1)

    def to_mask(self, kept: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """The units are the entries."""
        return kept.reshape(shape)

    def units(self, shape: torch.Size, layout: Layout) -> int:
        """The entries."""
        return math.prod(shape)

    def unit_size(self, shape: torch.Size, layout: Layout) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class PerRow:
    """Single weights, ranked inside their output row (a filter, for a convolution): every row loses the same number."""

    name: str = "element"
    share: None = None
    grouped: bool = True

    def check(self, name: str, shape: torch.Size, layout: Layout) -> None:
        """Any shape with an output and an input dimension."""

    def to_groups(self, scores: Tensor, layout: Layout) -> Tensor:
        """``[rows, entries of a row]``."""
        return scores.permute(_order(scores.dim(), layout, "kernel")).reshape(_rows(scores.shape, layout), -1)

    def to_mask(self, kept: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """The units are the entries."""
        return _back(kept, shape, _order(len(shape), layout, "kernel"))

    def units(self, shape: torch.Size, layout: Layout) -> int:
        """The entries."""
        return math.prod(shape)

    def unit_size(self, shape: torch.Size, layout: Layout) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class NM:
    """N kept of every M consecutive weights along the input dimension (for a convolution: M input channels at one kernel tap).

    An input dimension that M does not divide is an error, unless ``pad``: then the last group of r < M weights counts as
    filled up with removed ones, so it keeps min(N, r).
    """

    n: int
    m: int
    pad: bool = False
    grouped: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m or self.m < 2:
            raise BadInput(f"structure {self.name!r}: N:M keeps N of every M weights, 1 <= N <= M and M >= 2 (2:4 keeps 2 of "
                           "4)")  # fmt: skip

    @property
    def name(self) -> str:
        """``"2:4"``, or ``"2:4:pad"``."""
        return f"{self.n}:{self.m}" + (":pad" if self.pad else "")

    @property
    def share(self) -> float:
        """1 - N/M."""
        return 1 - self.n / self.m

    def check(self, name: str, shape: torch.Size, layout: Layout) -> None:
        """The input dimension must be a multiple of M, unless padded."""
        width = shape[layout.in_dim]
        if width % self.m and not self.pad:
            raise BadInput(f"structure {self.name!r} does not fit {name!r} of shape {tuple(shape)}: its input dimension "
                           f"{width} is not a multiple of {self.m}; exclude it, or use '{self.n}:{self.m}:pad', whose last "
                           "group is short")  # fmt: skip

    def to_groups(self, scores: Tensor, layout: Layout) -> Tensor:
        """``[numel / M, M]``, short groups filled with the lowest score there is, behind the real entries, so real ones win."""
        lined = scores.permute(_order(scores.dim(), layout, "in"))
        short = -lined.shape[-1] % self.m
        if short:
            lined = torch.nn.functional.pad(lined, (0, short), value=torch.finfo(scores.dtype).min)
        return lined.reshape(-1, self.m)

    def to_mask(self, kept: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """Padding is cut off again."""
        width = shape[layout.in_dim]
        lined = kept.reshape(-1, width + -width % self.m)[:, :width]
        return _back(lined, shape, _order(len(shape), layout, "in"))

    def units(self, shape: torch.Size, layout: Layout) -> int:
        """The entries."""
        return math.prod(shape)

    def unit_size(self, shape: torch.Size, layout: Layout) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class Sheltered:
    """Single weights, of which the N best of every M consecutive ones never go (Jin et al. 2025, the 2:4 variant).

    The others may go one by one, at any sparsity up to 1 - N/M, where the mask is N:M: a way there through training, ranked
    over the whole network by ``allocation="global"``.
    """

    n: int
    m: int
    share: None = None
    grouped: bool = False

    @property
    def name(self) -> str:
        """``"2:4:global"``."""
        return f"{self.n}:{self.m}:global"

    @property
    def most(self) -> float:
        """The highest sparsity there is, 1 - N/M."""
        return 1 - self.n / self.m

    def check(self, name: str, shape: torch.Size, layout: Layout) -> None:
        """The input dimension must be a multiple of M."""
        NM(self.n, self.m).check(name, shape, layout)

    def to_groups(self, scores: Tensor, layout: Layout) -> Tensor:
        """``[1, numel]``, in groups of M one behind the other; what is sheltered scores above everything."""
        lined = NM(self.n, self.m).to_groups(scores, layout)
        best = keep_mask_grouped(lined, self.m - self.n)
        return lined.masked_fill(best, torch.finfo(lined.dtype).max).reshape(1, -1)

    def to_mask(self, kept: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """The units are the entries; :class:`BadInput` if more would go than may."""
        if int(kept.reshape(-1, self.m).sum(1).min()) < self.n:
            raise BadInput(f"structure {self.name!r} keeps {self.n} of every {self.m} weights, but {int((~kept).sum())} of the "
                           f"{kept.numel()} of a weight of shape {tuple(shape)} were to go; use allocation='global' or "
                           f"'uniform', and a sparsity of at most {self.most:g}")  # fmt: skip
        return NM(self.n, self.m).to_mask(kept.reshape(-1, self.m), shape, layout)

    def units(self, shape: torch.Size, layout: Layout) -> int:
        """The entries."""
        return math.prod(shape)

    def unit_size(self, shape: torch.Size, layout: Layout) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class Block:
    """Blocks of R x C entries of the matrix [output rows, everything else], judged by their mean score.

    Blocks cut short by the edge of the matrix are whole units, judged by the mean over the entries they have. No block
    reaches from one stacked matrix (an expert) into the next.
    """

    rows: int
    cols: int
    share: None = None
    grouped: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise BadInput(f"structure {self.name!r}: a block has at least one row and one column, as in 'block:4x4'")

    @property
    def name(self) -> str:
        """``"block:4x4"``."""
        return f"block:{self.rows}x{self.cols}"

    def check(self, name: str, shape: torch.Size, layout: Layout) -> None:
        """The block must not be larger than the matrix."""
        rows, cols = self._matrix(shape, layout)
        if self.rows > rows or self.cols > cols:
            raise BadInput(f"structure {self.name!r} is larger than {name!r}, a matrix of {rows} x {cols} "
                           f"(shape {tuple(shape)}); use a smaller block or exclude it")  # fmt: skip

    def to_groups(self, scores: Tensor, layout: Layout) -> Tensor:
        """``[1, blocks]``, row-major over blocks."""
        matrices = PerRow().to_groups(scores, layout).reshape(_stack(scores.shape, layout), *self._matrix(scores.shape, layout))
        pooled = torch.nn.functional.avg_pool2d(
            matrices.float() if scores.dtype in (torch.float16, torch.bfloat16) else matrices,
            (self.rows, self.cols), ceil_mode=True, count_include_pad=False)  # fmt: skip
        return pooled.reshape(1, -1)

    def to_mask(self, kept: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """Every block spread over its entries."""
        rows, cols = self._matrix(shape, layout)
        grid = kept.reshape(_stack(shape, layout), -(-rows // self.rows), -(-cols // self.cols))
        matrices = grid.repeat_interleave(self.rows, 1)[:, :rows].repeat_interleave(self.cols, 2)[:, :, :cols]
        return PerRow().to_mask(matrices, shape, layout)

    def units(self, shape: torch.Size, layout: Layout) -> int:
        """Whole and cut blocks."""
        rows, cols = self._matrix(shape, layout)
        return _stack(shape, layout) * -(-rows // self.rows) * -(-cols // self.cols)

    def unit_size(self, shape: torch.Size, layout: Layout) -> int:
        """R x C."""
        return self.rows * self.cols

    @staticmethod
    def _matrix(shape: torch.Size, layout: Layout) -> tuple[int, int]:
        """Rows and columns of one matrix of the stack."""
        return shape[layout.out_dim], math.prod(shape) // _rows(shape, layout)


@dataclass(frozen=True)
class Rows:
    """Whole output rows of the mask (filters, for a convolution; gate rows, for an LSTM), judged by their mean score."""

    name: str = "rows"
    share: None = None
    grouped: bool = False

    def check(self, name: str, shape: torch.Size, layout: Layout) -> None:
        """Any shape with an output and an input dimension."""

    def to_groups(self, scores: Tensor, layout: Layout) -> Tensor:
        """``[1, rows]``."""
        matrix = PerRow().to_groups(scores, layout)
        return (matrix.float() if scores.dtype in (torch.float16, torch.bfloat16) else matrix).mean(1).reshape(1, -1)

    def to_mask(self, kept: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """Every row spread over its entries."""
        rows = _rows(shape, layout)
        return PerRow().to_mask(kept.reshape(rows, 1).expand(rows, math.prod(shape) // rows), shape, layout)

    def units(self, shape: torch.Size, layout: Layout) -> int:
        """Rows."""
        return _rows(shape, layout)

    def unit_size(self, shape: torch.Size, layout: Layout) -> int:
        """Entries of a row."""
        return math.prod(shape) // _rows(shape, layout)


def parse_structure(text: str) -> Structure:
    """The structure a user's words name: ``"element"``, ``"rows"``, ``"2:4"``, ``"2:4:pad"``, ``"2:4:global"`` or
    ``"block:4x4"``.

    Raises:
        BadInput: no such structure.
    """
    plain: dict[str, Structure] = {"element": Element(), "rows": Rows(), "filters": Rows()}
    if text in plain:
        return plain[text]
    if found := re.fullmatch(r"(\d+):(\d+):global", text):
        NM(int(found[1]), int(found[2]))  # which says what is wrong with the numbers
        return Sheltered(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"(\d+):(\d+)(:pad)?", text):
        return NM(int(found[1]), int(found[2]), bool(found[3]))
    if found := re.fullmatch(r"block:(\d+)x(\d+)", text):
        return Block(int(found[1]), int(found[2]))
    raise BadInput(f"structure={text!r} is unknown; use 'element', 'rows', N:M as in '2:4', or 'block:4x4'"
                   + near(text, [*plain, "2:4", "block:4x4"]))  # fmt: skip
