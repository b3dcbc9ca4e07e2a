"""Layer densities that depend on shapes alone: Erdos-Renyi and its kernel variant, and uniform with two exceptions."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch

from secateurs.core.layout import Layout
from secateurs.errors import BadInput

__all__ = ["er_densities", "first_convolution", "last_linear", "uniform_plus_densities"]

#: Of the last linear layer, where the whole network is sparser than that (uniform+).
HEAD = 0.2


def er_densities(
    shapes: Sequence[torch.Size],
    density: float,
    layouts: Sequence[Layout] | None = None,
    kernel: bool = True,
    dense: Collection[int] = (),
) -> list[float]:
    """Layer densities of Erdos-Renyi(-Kernel) random masks at an overall ``density`` (Mocanu et al. 2018; Evci et al. 2020).

    ``d_l = eps (n_in + n_out) / (n_in n_out)``; with ``kernel``, ``eps * sum(shape) / prod(shape)``. eps makes the kept
    weights add up to ``density`` of all; where it would make a layer denser than 1, the one furthest above is made dense and
    eps is solved again over the others. The layers with the indices ``dense`` are so from the start.

    Raises:
        BadInput: ``dense`` layers hold more than ``density`` allows.
    """
    layouts = layouts or [Layout()] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    raw = [_er_raw(shape, layout, kernel) for shape, layout in zip(shapes, layouts, strict=True)]
    full = set(dense)
    _afford(sum(sizes[i] for i in full), sizes, density)
    while True:
        sparse = [i for i in range(len(shapes)) if i not in full]
        budget = density * sum(sizes) - sum(sizes[i] for i in full)
        eps = budget / sum(raw[i] * sizes[i] for i in sparse) if sparse else 0.0
        over = [i for i in sparse if eps * raw[i] > 1]
        if not over:
            return [1.0 if i in full else eps * raw[i] for i in range(len(shapes))]
        full.add(max(over, key=lambda i: raw[i]))


def _er_raw(shape: torch.Size, layout: Layout, kernel: bool) -> float:
    if kernel:
        matrix = shape[min(layout.out_dim, layout.in_dim) :]  # stacked experts are as many matrices of this shape
        return sum(matrix) / math.prod(matrix)
    return (shape[layout.out_dim] + shape[layout.in_dim]) / (shape[layout.out_dim] * shape[layout.in_dim])


def uniform_plus_densities(sizes: Sequence[int], density: float, first: int | None, last: int | None) -> list[float]:
    """One density for all layers but two, at an overall ``density`` (uniform+, Gale et al. 2019).

    The layer ``first`` is dense, and where ``density`` is below 0.2 the layer ``last`` has 0.2; either may be None.

    Raises:
        BadInput: these two hold more than ``density`` allows.
    """
    own: dict[int, float] = {}
    if last is not None and density < HEAD:
        own[last] = HEAD
    if first is not None:
        own[first] = 1.0
    fixed = sum(sizes[i] * d for i, d in own.items())
    _afford(fixed, sizes, density)
    rest = sum(n for i, n in enumerate(sizes) if i not in own)
    common = (density * sum(sizes) - fixed) / rest if rest else 0.0
    return [own.get(i, common) for i in range(len(sizes))]


def first_convolution(shapes: Sequence[torch.Size], layouts: Sequence[Layout]) -> int | None:
    """Index of the first weight with a kernel behind its two channel dimensions."""
    found = (i for i, (s, at) in enumerate(zip(shapes, layouts, strict=True))
             if len(s) > 2 and min(at.out_dim, at.in_dim) == 0)  # fmt: skip
    return next(found, None)


def last_linear(shapes: Sequence[torch.Size]) -> int | None:
    """Index of the last matrix."""
    return next((i for i in reversed(range(len(shapes))) if len(shapes[i]) == 2), None)


def _afford(fixed: float, sizes: Sequence[int], density: float) -> None:
    if fixed > density * sum(sizes):
        raise BadInput(f"a density of {density:g} keeps {density * sum(sizes):.0f} of {sum(sizes)} weights, but the layers "
                       f"that stay dense hold {fixed:.0f} of them; lower the sparsity, or use allocation='erk'")  # fmt: skip
