"""A weight as the matrices it multiplies with: ``[parts, rows, columns]``, columns in the order of the measured inputs.

A linear layer has one part. Stacked experts are a part each, the groups of a grouped convolution too. A convolution's
columns are its input channels and, inside each, the taps of its kernel: what a patch of its input has, flattened.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from secateurs.core.layout import Layout
from secateurs.core.structures import PerRow
from secateurs.models.tree import Weight

__all__ = ["broadcast", "from_matrices", "matrices", "parts"]

_ROWS = PerRow()


def parts(weight: Weight) -> int:
    """How many matrices ``weight`` holds."""
    stacked = math.prod(weight.shape[: min(weight.layout.out_dim, weight.layout.in_dim)])
    return stacked * _groups(weight)


def matrices(weight: Weight, values: Tensor | None = None) -> Tensor:
    """``[parts, rows, columns]`` of the weight, or of ``values`` of its shape; a copy, unless the weight lies so in memory."""
    values = weight.parameter.detach() if values is None else values
    rows = _ROWS.to_groups(values, weight.layout)
    return rows.reshape(parts(weight), -1, rows.shape[1])


def from_matrices(weight: Weight, stacked: Tensor) -> Tensor:
    """Undo :func:`matrices`: a tensor of the weight's shape."""
    return _ROWS.to_mask(stacked.reshape(-1, stacked.shape[-1]), torch.Size(weight.shape), weight.layout)


def broadcast(weight: Weight, columns: Tensor) -> Tensor:
    """A value per part and column, ``[parts, columns]``, so that it multiplies with the weight, entry by entry."""
    shape, layout = list(weight.shape), weight.layout
    if _groups(weight) == 1:
        shape[layout.out_dim] = 1
        return _ROWS.to_mask(columns, torch.Size(shape), layout)
    rows = weight.shape[layout.out_dim] // _groups(weight)
    return from_matrices(weight, columns.repeat_interleave(rows, 0))


def _groups(weight: Weight) -> int:
    module = weight.sites[0].module
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and weight.layout == Layout():
        return module.groups
    return 1
