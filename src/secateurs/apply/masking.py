"""The dense model with the removed indices at zero: what a smaller model is compared with."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from secateurs.apply.literals import centred
from secateurs.apply.places import Places, shape
from secateurs.apply.rewriting import place, places, program_of
from secateurs.apply.slicing import slice_tensors
from secateurs.errors import BadInput
from secateurs.formats import named_tensors
from secateurs.graph.groups import Graph, Keeps

__all__ = ["kept_positions", "kept_statistics", "masked_model", "masked_program", "masked_tensors"]

_aten = torch.ops.aten


def masked_tensors(graph: Graph, keeps: Keeps, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` of the dense shapes with every entry that leaves at zero; integer ones (indices) are left as they are."""
    places_ = {name: torch.arange(t.numel()).view(t.shape) for name, t in tensors.items() if t.is_floating_point()}
    left = slice_tensors(graph, keeps, places_)
    found = dict(tensors)
    for name, survivors in left.items():
        if survivors.shape != tensors[name].shape:
            mask = torch.zeros(tensors[name].numel(), dtype=torch.bool)
            mask[survivors.flatten()] = True
            found[name] = tensors[name].detach() * mask.view(tensors[name].shape).to(tensors[name].device)
    return found


def masked_model(model: nn.Module, graph: Graph, keeps: Keeps, shrunk: nn.Module | None = None) -> nn.Module:
    """A copy of ``model`` with what leaves at zero; layer and group norms take their statistics from what stays.

    With ``shrunk``, the smaller module of the same structure, such a norm is computed by the norm of ``shrunk`` on the entries
    that stay; without it, norms are as they are.
    """
    twin = copy.deepcopy(model)
    own = dict(named_tensors(twin))
    for name, value in masked_tensors(graph, keeps, own).items():
        if value is not own[name]:
            with torch.no_grad():
                own[name].copy_(value)
    if shrunk is not None:
        norms = [n for n in kept_statistics(graph, keeps) if isinstance(_module(twin, n), (nn.LayerNorm, nn.GroupNorm))]
        for name, dim in _cut_dims(graph, keeps, norms).items():
            hook = _on_kept(_module(shrunk, name), kept_positions(graph, keeps, name), dim)
            _module(twin, name).register_forward_hook(hook)  # type: ignore[union-attr]
    return twin


def kept_statistics(graph: Graph, keeps: Keeps) -> tuple[str, ...]:
    """Names of the modules whose statistics span an axis that loses indices, in order."""
    cut = [graph[name] for name, kept in keeps.items() if kept.shape[-1] < graph[name].size]
    return tuple(dict.fromkeys(norm for group in cut for norm in group.norms))


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def kept_positions(graph: Graph, keeps: Keeps, name: str) -> Tensor:
    """The positions that stay on the normalised dimension of the norm ``name``, by its weight."""
    weight = f"{name}.weight"
    parts = [(group, part) for group in graph.groups if group.name in keeps for part in group.slices if part.tensor == weight]
    if not parts:
        raise BadInput(f"{name!r} has no weight to tell its kept channels by")
    size = 1 + max(int(part.index.max()) for _, part in parts)
    traced = graph.program.state_dict.get(weight)
    size = len(traced) if traced is not None else size
    return slice_tensors(graph, keeps, {weight: torch.arange(size)})[weight]


def _cut_dims(graph: Graph, keeps: Keeps, names: Iterable[str]) -> dict[str, int]:
    """The dimension of each norm's input that is cut, as the program shows it."""
    where, wanted = places(graph, keeps), set(names)
    found: dict[str, int] = {}
    for node in program_of(graph).graph.nodes:
        inside = wanted.intersection(path for path, _ in (node.meta.get("nn_module_stack") or {}).values()) - found.keys()
        for source in node.all_input_nodes if inside else ():
            cut = [dim for dim, kept in enumerate(where.all(source)[0]) if kept is not None]
            if source.op != "get_attr" and cut:
                found |= dict.fromkeys(inside - found.keys(), cut[0])  # the input comes first, then what is made of the weight
    return found


def _on_kept(norm: nn.Module | None, kept: Tensor, dim: int) -> Callable[..., Any]:
    def hook(_: nn.Module, arguments: tuple[Any, ...], out: Tensor) -> Tensor:
        assert norm is not None
        index = kept.to(out.device)
        return torch.zeros_like(out).index_copy(dim, index, norm(arguments[0].index_select(dim, index)))

    return hook


def masked_program(graph: Graph, keeps: Keeps, tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """The traced program on ``tensors`` with what leaves at zero; norms as in :func:`masked_model`."""
    module = program_of(graph)
    masked = masked_tensors(graph, keeps, tensors)
    fresh: dict[int, Tensor] = {}
    for name in dict.fromkeys(str(node.target) for node in module.graph.nodes if node.op == "get_attr"):
        old = operator.attrgetter(name)(module)
        if name in masked and id(old) not in fresh:
            place(module, name, masked[name].detach().clone())
            fresh[id(old)] = operator.attrgetter(name)(module)
        elif id(old) in fresh:
            path, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(path), attribute, fresh[id(old)])
    where = places(graph, keeps)
    for node in list(module.graph.nodes):
        if node.target is _aten.layer_norm.default:
            _kept_layer_norm_node(node, where)
        elif node.target is _aten.group_norm.default:
            _kept_group_norm_node(node, where)
        elif node.target is _aten.mean.dim and centred(node):
            _kept_mean_node(node, where)
    module.recompile()
    return module


def _kept_layer_norm_node(node: fx.Node, where: Places) -> None:
    value, sizes = node.args[0], node.args[1]
    kept = [where.of(value, d - len(sizes)) for d in range(len(sizes))]  # type: ignore[arg-type]
    if any(k is not None for k in kept):
        node.args = (*node.args, *[None, None, 1e-5][len(node.args) - 2 :])[:5]
        node.update_arg(1, [k.tolist() if k is not None else list(range(n)) for k, n in zip(kept, sizes, strict=True)])  # type: ignore[arg-type]
        node.target, node.kwargs = layer_norm_of, {}


def layer_norm_of(value: Tensor, kept: list[list[int]], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of the ``kept`` entries of the last dimensions, zero elsewhere."""
    index: Any = torch.meshgrid(*[torch.tensor(k, device=value.device) for k in kept], indexing="ij")
    few = value[(..., *index)]
    weight, bias = (None if t is None else t[index] for t in (weight, bias))
    out = torch.zeros_like(value)
    out[(..., *index)] = functional.layer_norm(few, few.shape[-len(kept) :], weight, bias, eps)
    return out


def _kept_group_norm_node(node: fx.Node, where: Places) -> None:
    kept = where.of(node.args[0], 1)
    if kept is not None:
        arguments = (*node.args, *[None, None, 1e-5][len(node.args) - 2 :])[:5]
        groups = _runs(kept, shape(node.args[0])[1], arguments[1])  # type: ignore[arg-type]
        node.args = (arguments[0], kept.tolist(), groups, *arguments[2:])
        node.target, node.kwargs = group_norm_of, {}


def _kept_mean_node(node: fx.Node, where: Places) -> None:
    """Of a layer norm written out: the mean of what stays."""
    value, dims = node.args[0], node.args[1]
    for dim in dims:  # type: ignore[union-attr]
        kept = where.of(value, dim)  # type: ignore[arg-type]
        if kept is not None:
            with node.graph.inserting_before(node):
                node.update_arg(0, node.graph.call_function(select_of, (node.args[0], dim, kept.tolist())))


def select_of(value: Tensor, dim: int, kept: list[int]) -> Tensor:
    """The ``kept`` positions of ``dim``."""
    return value.index_select(dim, torch.tensor(kept, device=value.device))


def _runs(kept: Tensor, size: int, groups: int) -> int:
    return len(torch.unique(kept // (size // groups)))


def group_norm_of(
    value: Tensor, kept: list[int], groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Group norm of the ``kept`` channels in ``groups`` groups, zero elsewhere."""
    index = torch.tensor(kept, device=value.device)
    weight, bias = (None if t is None else t[index] for t in (weight, bias))
    few = functional.group_norm(value.index_select(1, index), groups, weight, bias, eps)
    return torch.zeros_like(value).index_copy(1, index, few)
