"""The user's own module with smaller tensors: parameters replaced by qualified name, then the attributes that speak of them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.apply.rewriting import like
from secateurs.apply.slicing import slice_tensors, traced_tensors
from secateurs.errors import BadInput
from secateurs.formats import named_tensors
from secateurs.graph.groups import Graph, Keeps
from secateurs.models.reasons import packed_weights, reparametrised
from secateurs.models.storage import storage_problem

__all__ = ["check_plain", "pieces", "resize"]


def check_plain(model: nn.Module) -> None:
    """Raise :class:`BadInput`, naming what and the remedy, where ``model`` has tensors that cannot be cut as stored."""
    if isinstance(model, torch.jit.ScriptModule):
        raise BadInput(f"{type(model).__name__} is a TorchScript module: prune the eager model, then script it")
    for name, _, reason in packed_weights(model):
        raise BadInput(f"{name!r} is {reason}")
    for path, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            name = f"{path}.{attribute}".removeprefix(".")
            if parameter is None:
                continue
            if reason := reparametrised(module, attribute):
                raise BadInput(f"{name!r} is {reason}")
            if parameter.is_floating_point() and (problem := storage_problem(parameter)):
                raise BadInput(f"{name!r} {problem}")
            if not parameter.is_floating_point() and not parameter.is_complex():
                raise BadInput(f"{name!r} is stored as {parameter.dtype}: prune the float model, then quantise")


def pieces(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Every tensor of ``model`` that the program knows, by every name it has there; tied names share memory.

    Raises:
        BadInput: ``model`` is not the one the graph was traced from.
    """
    found: dict[str, Tensor] = dict(named_tensors(model))
    for name, traced in traced_tensors(graph).items():
        if name not in found:
            found[name] = _constant(model, name, traced)
        if found[name].shape != traced.shape:
            raise BadInput(f"{name!r} is {tuple(found[name].shape)} in the model and {tuple(traced.shape)} in the graph: "
                           "trace the model as it is now")  # fmt: skip
    return found


def _constant(model: nn.Module, name: str, traced: Tensor) -> Tensor:
    """A tensor that is a plain attribute, or one that only the program has."""
    try:
        value = operator.attrgetter(name)(model)
    except AttributeError:
        return traced
    return value if isinstance(value, Tensor) else traced


def resize(model: nn.Module, graph: Graph, keeps: Keeps) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of ``model`` with its tensors (and their gradients) cut, and the names of tensors that have no place in it.

    Tied parameters stay one parameter; a tensor nothing leaves is copied as it is.
    """
    old = pieces(model, graph)
    new = slice_tensors(graph, keeps, old)
    changed = {name for name in old if new[name].shape != old[name].shape}
    homeless = [name for name in sorted(changed) if not _has(model, name)]
    smaller = _copied(model, {name: new[name] for name in changed if name not in homeless})
    _cut_gradients(model, smaller, graph, keeps)
    _refresh(smaller)
    return smaller, tuple(homeless)


def _has(module: nn.Module, name: str) -> bool:
    try:
        return isinstance(operator.attrgetter(name)(module), Tensor)
    except AttributeError:
        return False


def _copied(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``model`` that has ``tensors`` instead of its own, wherever it holds those; the old ones are not copied."""
    instead: dict[int, Any] = {}
    for name, value in tensors.items():
        old = operator.attrgetter(name)(model)
        if id(old) not in instead:
            instead[id(old)] = like(old, value.detach())
    return copy.deepcopy(model, instead)


def _cut_gradients(model: nn.Module, smaller: nn.Module, graph: Graph, keeps: Keeps) -> None:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not gradients:
        return
    cut = slice_tensors(graph, keeps, gradients)
    for name, parameter in smaller.named_parameters():
        if name in cut:
            parameter.grad = cut[name].clone() if cut[name] is gradients[name] else cut[name]


def _refresh(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
