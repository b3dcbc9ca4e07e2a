"""Two oracles that know nothing of the rules: shuffle a group, and silence one of its indices."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateurs.graph import Graph, Group, Slice, trace


class Net(nn.Module):
    """Modules and parameters by name, and a forward given as a function of the net and its inputs."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.steps = forward
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, *inputs: Any) -> Any:
        return self.steps(self, *inputs)


def run(model: nn.Module, example: Any) -> list[Tensor]:
    """Every floating-point tensor the model gives."""
    with torch.no_grad():
        if isinstance(example, Mapping):
            given = model(**example)
        else:
            given = model(*example) if isinstance(example, tuple) else model(example)
    return [value for value in pytree.tree_leaves(given) if isinstance(value, Tensor) and value.is_floating_point()]


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def restless(model: nn.Module) -> nn.Module:
    """Evaluation mode, double precision, and no tensor of equal entries: what a wrong order must not leave unchanged."""
    model = model.eval().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in tensors_of(model).values():
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return model


def changed(model: nn.Module, change: Callable[[Tensor, Slice], Tensor], slices: tuple[Slice, ...]) -> nn.Module:
    """A copy of the model with each slice's tensor replaced."""
    model = copy.deepcopy(model)
    held = tensors_of(model)
    with torch.no_grad():
        for member in slices:
            held[member.tensor].copy_(change(held[member.tensor].clone(), member))
    return model


def shuffled(model: nn.Module, group: Group) -> nn.Module:
    """Index ``k`` of the group goes where another one was, in all slices."""
    order = torch.arange(group.size).roll(1)

    def shuffle(tensor: Tensor, member: Slice) -> Tensor:
        place = torch.arange(tensor.shape[member.dim])
        place[member.index.flatten()] = member.index[order].flatten()
        return tensor.index_select(member.dim, place)

    return changed(model, shuffle, group.slices)


def silenced(model: nn.Module, group: Group, index: int, roles: set[str]) -> nn.Module:
    """Zeros in the slices of one index that have one of ``roles``."""
    return changed(
        model,
        lambda tensor, member: tensor.index_fill(member.dim, member.index[index], 0),
        tuple(member for member in group.slices if member.role in roles),
    )


def differ(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest difference, relative to the outputs where they are above one."""
    assert len(before) == len(after) > 0
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.numel()]
    return max(float((a - b).abs().max()) / max(1.0, float(a.abs().max())) for a, b in pairs)


def check(model: nn.Module, example: Any, tolerance: float = 1e-10, silence: bool = True) -> Graph:
    """Both oracles on every prunable group of a traced model; returns the graph.

    Shuffled: no output may change; one missing member fails it. Silenced: once consumers ignore an index, it must not matter
    what its producers make; one missing consumer fails it. A norm's statistics and the product of queries with keys read an
    axis without weights of their own, so those are shuffled only.
    """
    model = restless(model)
    graph = trace(model, example)
    before = run(model, example)
    for group in graph.prunable():
        worst = differ(before, run(shuffled(model, group), example))
        assert worst <= tolerance, f"{group.name} ({group.kind}) shuffled: {worst:.2g}"
        if silence and not group.norms and group.kind != "head-dims" and any(member.role == "in" for member in group.slices):
            ignored = run(silenced(model, group, group.size - 1, {"in"}), example)
            gone = run(silenced(model, group, group.size - 1, {"in", "out", "bias", "norm", "direct"}), example)
            assert (worst := differ(ignored, gone)) <= tolerance, f"{group.name} ({group.kind}) silenced: {worst:.2g}"
    return graph


def sizes(graph: Graph) -> list[int]:
    """The sizes of the prunable groups, sorted."""
    return sorted(group.size for group in graph.prunable())
