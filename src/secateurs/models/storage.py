"""Whether the selected weights are stored in a way that can be ranked and masked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.models.tree import Survey, Weight

__all__ = ["check", "check_storage", "storage_problem"]

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def storage_problem(parameter: Tensor) -> str:
    """What stands against pruning ``parameter`` as it is stored, with the remedy; empty when nothing does."""
    kind = type(parameter)
    if getattr(kind, "__torch_dispatch__", None) is not nn.Parameter.__torch_dispatch__ or (
        kind.__torch_function__ is not nn.Parameter.__torch_function__
    ):
        return f"is a {kind.__module__}.{kind.__name__}: prune the plain model, then quantise, shard or wrap it"
    if parameter.device.type == "meta":
        return "is on the meta device and has no values: load the model without offloading first"
    if parameter.layout != torch.strided:
        return f"is stored as {parameter.layout}: call .to_dense() on it first"
    if parameter.is_quantized or parameter.dtype not in _FLOATS:
        return f"is stored as {parameter.dtype}: prune in float32, float64, bfloat16 or float16, then quantise"
    if _span(parameter) < parameter.numel():
        return "has entries that share memory with each other (an expanded tensor): call .contiguous() on it first"
    return ""


def check_storage(weight: Weight) -> None:
    """Raise :class:`BadInput`, naming the parameter and the remedy, if ``weight`` cannot be pruned as it is stored."""
    if problem := storage_problem(weight.parameter):
        raise BadInput(f"{weight.name!r} {problem}")


def check(survey: Survey) -> None:
    """Raise one :class:`BadInput` for all selected weights that cannot be pruned as they are stored.

    Refused are weights on the meta device, quantised, sparse, sharded or wrapped in a tensor subclass, and two parameters
    that lie over each other in memory without being one and the same parameter.
    """
    problems = [f"{w.name!r} {problem}" for w in survey.weights if (problem := storage_problem(w.parameter))]
    problems = problems or list(_overlaps(survey.weights))
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise BadInput("cannot prune this model as it is: " + "; ".join(problems[:3]) + more)


def _span(tensor: Tensor) -> int:
    """Entries of storage from the first to the last entry of ``tensor``."""
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0


def _overlaps(weights: tuple[Weight, ...]) -> Iterator[str]:
    """Pairs of parameters on the same memory. Interleaved views (a span wider than the entries) are not looked into."""
    dense = [w for w in weights if _span(w.parameter) == w.size]
    dense.sort(key=lambda w: (str(w.parameter.device), w.parameter.data_ptr()))
    for a, b in pairwise(dense):
        end = a.parameter.data_ptr() + a.size * a.parameter.element_size()
        if a.parameter.device == b.parameter.device and b.parameter.data_ptr() < end:
            yield (f"{a.name!r} and {b.name!r} share memory but are two parameters: tie them by giving both layers "
                   "the same torch.nn.Parameter")  # fmt: skip
