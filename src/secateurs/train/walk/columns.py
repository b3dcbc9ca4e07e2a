"""A layer's input as rows of the columns its weight multiplies with, one tensor per part of the weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateurs.errors import BadInput
from secateurs.models import Weight

__all__ = ["columns", "reading", "unmeasured"]

_Conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_UNMEASURED = {
    "embedding": "an embedding is looked up, not multiplied: it has no input to measure",
    "recurrent": "a recurrent layer computes inside torch: its inputs cannot be seen",
    "attention": "torch.nn.MultiheadAttention multiplies inside torch: its inputs cannot be seen",
    "transposed-conv": "the inputs of a transposed convolution are not measured",
}


def unmeasured(weight: Weight) -> str:
    """Why no statistic of the inputs of ``weight`` can be had; empty where one can."""
    if any(isinstance(site.module, nn.Bilinear) for site in weight.sites):
        return "a bilinear layer has two inputs"
    return _UNMEASURED.get(weight.kind, "")


def reading(module: nn.Module) -> Hashable:
    """What of ``module`` decides how it reads an input: two layers that read one input alike see the same columns."""
    if isinstance(module, _Conv):
        return (module.kernel_size, module.stride, module.dilation, module.padding, module.groups, module.padding_mode)
    return "rows"


def columns(weight: Weight, module: nn.Module, x: Tensor, draw: Callable[[int], Tensor] | None = None) -> list[Tensor]:
    """The input ``x`` of ``module``, ``[..., columns]`` per part of ``weight``.

    A linear layer has one part and its input is left as it is; a convolution's is unfolded into patches, ``[N, places,
    columns]`` per group: all of them, or those that ``draw`` says of so many.

    Raises:
        BadInput: the input has not the width of the weight.
    """
    if isinstance(module, _Conv):
        return _patches(module, x, draw)
    width = weight.shape[weight.layout.in_dim]
    if x.dim() == 0 or x.shape[-1] != width:
        raise BadInput(f"{weight.name!r} of shape {weight.shape} gets an input of shape {tuple(x.shape)}: its last dimension "
                       f"is not the {width} the weight reads; exclude it, or declare its layout")  # fmt: skip
    return [x]


def _patches(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor, draw: Callable[[int], Tensor] | None) -> list[Tensor]:
    dims = len(module.kernel_size)
    if x.dim() == dims + 1:
        x = x.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    sizes = zip(module.kernel_size, module.stride, module.dilation, strict=True)
    for d, (size, stride, dilation) in enumerate(sizes):
        x = x.unfold(2 + d, dilation * (size - 1) + 1, stride)[..., ::dilation]
    # [N, channels, places..., taps...] -> per group [N, places, channels x taps]
    places = list(range(2, 2 + dims))
    taps = list(range(2 + dims, 2 + 2 * dims))
    groups = [torch.permute(g, [0, *places, 1, *taps]) for g in x.chunk(module.groups, dim=1)]
    if draw is not None:  # before anything is copied: patches are many times the input
        chosen = torch.unravel_index(draw(math.prod(groups[0].shape[1 : 1 + dims])).to(x.device), groups[0].shape[1 : 1 + dims])
        at: tuple[slice | Tensor, ...] = (slice(None), *chosen)
        groups = [g[at] for g in groups]
    return [g.reshape(x.shape[0], -1, x.shape[1] // module.groups * _product(module)) for g in groups]


def _product(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> int:
    size = 1
    for k in module.kernel_size:
        size *= k
    return size
