"""Cutting tensors: the positions of every dimension that stay, and all that is indexed by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.graph.groups import Graph, Group, Keeps, Slice

__all__ = ["check_keeps", "removed", "slice_optimizer", "slice_tensors", "traced_tensors"]


def check_keeps(graph: Graph, keeps: Keeps) -> None:
    """Raise :class:`BadInput`, naming the group, unless ``keeps`` can be carried out on ``graph``."""
    groups = {group.name: group for group in graph.groups}
    for name, kept in keeps.items():
        if name not in groups:
            raise BadInput(f"the graph has no group {name!r}: it has {', '.join(map(repr, list(groups)[:4]))} ...")
        group = groups[name]
        problem = _problem(group, kept, keeps, groups)
        if problem:
            raise BadInput(f"group {name!r} of {group.size}: {problem}")
    counts: dict[str, tuple[str, int]] = {}
    for group in groups.values():
        left = keeps[group.name].shape[-1] if group.name in keeps else group.size
        if group.tie is not None:
            other, expected = counts.setdefault(group.tie, (group.name, left))
            if expected != left:
                raise BadInput(f"group {group.name!r} would keep {left} and {other!r} {expected}: they must keep equally many")


def _problem(group: Group, kept: Tensor, keeps: Keeps, groups: Mapping[str, Group]) -> str:
    if kept.dtype != torch.int64 or kept.ndim not in (1, 2) or not kept.numel():
        return "give the kept indices as a sorted int64 tensor with at least one of them"
    if bool((kept.diff(dim=-1) <= 0).any()) or int(kept.min()) < 0 or int(kept.max()) >= group.size:
        return f"kept indices must be distinct, ascending and below {group.size}"
    if group.frozen is not None and kept.shape[-1] != group.size:
        return f"nothing of it may go: {group.frozen}"
    if kept.ndim == 2:
        if group.parent is None:
            return "it has no parent, so it keeps the same indices everywhere: give one row of them"
        rows = len(keeps[group.parent]) if group.parent in keeps else groups[group.parent].size
        if len(kept) != rows:
            return f"give a row of kept indices for each of the {rows} that {group.parent!r} keeps"
    return ""


def removed(group: Group, kept: Tensor) -> Tensor:
    """Which indices of ``group`` go: bool ``[size]``, or ``[rows, size]`` where every parent index has a row of its own."""
    gone = torch.ones(*kept.shape[:-1], group.size, dtype=torch.bool)
    return gone.scatter_(-1, kept.cpu(), torch.zeros((), dtype=torch.bool).expand(kept.shape))


def slice_tensors(graph: Graph, keeps: Keeps, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those ``tensors`` (by the names of the model: a state dict, an averaged copy, optimizer moments) after removal.

    A tensor that no removed index touches is returned as it is. Names that share one memory (tied weights) still do.

    Raises:
        BadInput: ``keeps`` cannot be carried out, or a tensor has not the shape the graph was traced with.
    """
    check_keeps(graph, keeps)
    cuts = _cuts(graph, keeps)
    tied = _first_names(tensors)
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        known = next((n for n in tied[name] if n in cuts), None)
        first = tied[name][0]
        if known is None:
            found[name] = value
        else:
            found[name] = found[first] if first in found else _cut(value, cuts[known], name)
    return found


def _first_names(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Every name that shares the memory of each name, in order."""
    same: dict[tuple[object, ...], list[str]] = {}
    for name, value in tensors.items():
        own = value.is_meta or not value.numel()
        same.setdefault((name,) if own else (value.data_ptr(), value.shape, value.stride()), []).append(name)
    return {name: names for names in same.values() for name in names}


class Cut:
    """What leaves one tensor: removed positions by dimension, and ragged dimensions whose positions differ per parent."""

    def __init__(self) -> None:
        self.gone: dict[int, Tensor] = {}
        self.ragged: list[tuple[int, int, Tensor]] = []

    def remove(self, dim: int, positions: Tensor, size: int) -> None:
        """Mark ``positions`` of dimension ``dim``."""
        mask = self.gone.setdefault(dim, torch.zeros(size, dtype=torch.bool))
        mask[positions] = True

    def kept(self, dim: int) -> Tensor:
        """The positions of ``dim`` that stay, ascending."""
        return (~self.gone[dim]).nonzero().flatten()


def _cuts(graph: Graph, keeps: Keeps) -> dict[str, Cut]:
    groups = {group.name: group for group in graph.groups}
    sizes = _sizes(graph)
    cuts: dict[str, Cut] = {}
    for name, kept in keeps.items():
        group = groups[name]
        if kept.shape[-1] == group.size:
            continue
        gone = removed(group, kept)
        for part in group.slices:
            target = cuts.setdefault(part.tensor, Cut())
            if kept.ndim == 1:
                target.remove(part.dim, part.index[gone].flatten(), sizes[part.tensor][part.dim])
            else:
                assert group.parent is not None  # check_keeps saw to it
                parent = groups[group.parent]
                rows = keeps.get(parent.name, torch.arange(parent.size))
                _remove_ragged(target, part, gone, parent, rows, sizes[part.tensor])
    return cuts


def _remove_ragged(target: Cut, part: Slice, gone: Tensor, parent: Group, rows: Tensor, shape: tuple[int, ...]) -> None:
    """One parent index after the other; where the parent lies on another dimension, each of its positions has own indices."""
    beside = [s for s in parent.slices if s.tensor == part.tensor]
    if any(s.dim == part.dim for s in beside):
        owner = _owner(beside, part.dim, shape[part.dim])
        for row, index in zip(gone, rows.tolist(), strict=True):
            positions = part.index[row].flatten()
            target.remove(part.dim, positions[owner[positions] == index], shape[part.dim])
    elif beside:
        own = beside[0].dim
        owner = _owner(beside, own, shape[own])
        keep = torch.stack([_positions(part, row, shape[part.dim]) for row in gone])
        rank = torch.zeros(parent.size, dtype=torch.int64)
        rank[rows] = torch.arange(len(rows))  # rows of removed parents leave anyway: any choice will do for them
        target.ragged.append((part.dim, own, keep[rank[owner]]))
    else:
        raise BadInput(f"{part.tensor!r} does not carry {parent.name!r}: its indices must be the same for all of them")


def _owner(slices: Iterable[Slice], dim: int, size: int) -> Tensor:
    """The group's index that each position of the dimension belongs to."""
    owner = torch.full((size,), -1, dtype=torch.int64)
    for part in slices:
        if part.dim == dim:
            owner[part.index] = torch.arange(len(part.index))[:, None].expand_as(part.index)
    return owner


def _positions(part: Slice, gone: Tensor, size: int) -> Tensor:
    mask = torch.ones(size, dtype=torch.bool)
    mask[part.index[gone].flatten()] = False
    return mask.nonzero().flatten()


def traced_tensors(graph: Graph) -> dict[str, Tensor]:
    """The parameters, buffers and constants the program was traced with, by name."""
    program = graph.program
    constants = {name: value for name, value in program.constants.items() if isinstance(value, Tensor)}
    return {**constants, **program.state_dict}


def _sizes(graph: Graph) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in traced_tensors(graph).items()}


def _cut(value: Tensor, what: Cut, name: str) -> Tensor:
    """``value`` without what leaves it; always its own memory, autograd not recorded."""
    value = value.detach()
    for dim, own, keep in what.ragged:
        _fits(value, own, len(keep), name)
        moved = value.movedim((own, dim), (0, 1))
        index = keep.to(value.device).view(*keep.shape, *[1] * (moved.ndim - 2)).expand(*keep.shape, *moved.shape[2:])
        value = moved.gather(1, index).movedim((0, 1), (own, dim))
    for dim, gone in what.gone.items():
        _fits(value, dim, len(gone), name)
        value = value.index_select(dim, what.kept(dim).to(value.device))
    return value.contiguous()


def _fits(value: Tensor, dim: int, size: int, name: str) -> None:
    if value.ndim <= dim or value.shape[dim] != size:
        raise BadInput(f"{name!r} has shape {tuple(value.shape)}, and the graph was traced with {size} in dimension {dim}: "
                       "is it of another model, or cut already?")  # fmt: skip


def slice_optimizer(
    optimizer: torch.optim.Optimizer, graph: Graph, keeps: Keeps, dense: nn.Module, shrunk: nn.Module
) -> None:
    """Let ``optimizer``, which trained ``dense``, go on with ``shrunk``: moments are cut as their parameters are.

    Parameters are told by identity, so tied ones count once; hyperparameters and parameter groups stay as they are. State
    that has its parameter's shape (Adam's moments, momentum) is cut, single numbers (steps) are kept.

    Raises:
        BadInput: a parameter of the optimizer is not one of ``dense``, or state of another shape (factored moments).
            Nothing is changed then.
    """
    names = {id(p): name for name, p in dense.named_parameters()}
    fresh = dict(shrunk.named_parameters())
    check_keeps(graph, keeps)
    cuts = _cuts(graph, keeps)
    old = [p for group in optimizer.param_groups for p in group["params"]]
    strangers = [tuple(p.shape) for p in old if id(p) not in names]
    if strangers:
        raise BadInput(f"the optimizer holds a parameter of shape {strangers[0]} that is not in the dense model: "
                       "give the model it was built for")  # fmt: skip
    states = {id(p): _cut_state(optimizer.state.get(p, {}), p, names[id(p)], cuts) for p in old}
    for group in optimizer.param_groups:
        replaced = [(p, fresh[names[id(p)]]) for p in group["params"]]
        group["params"] = [new for _, new in replaced]
        for p, new in replaced:
            optimizer.state.pop(p, None)
            if states[id(p)]:
                optimizer.state[new] = states[id(p)]


def _cut_state(state: Mapping[str, Any], parameter: Tensor, name: str, cuts: Mapping[str, Cut]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor) or (value.numel() <= 1 and parameter.numel() > 1) or name not in cuts:
            found[key] = value
        elif value.shape == parameter.shape:
            found[key] = _cut(value, cuts[name], f"{key} of {name}")
        else:
            raise BadInput(f"the optimizer's {key!r} of {name!r} has shape {tuple(value.shape)}, not that of the parameter: "
                           "start the optimizer anew on the smaller model")  # fmt: skip
    return found
