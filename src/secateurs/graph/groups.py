"""What a traced model is made of, for pruning: groups of slices that leave together, and what must stay and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from secateurs.errors import BadInput, near
from secateurs.graph.axes import Axis, Dim, Sum, labels, leaves, size

__all__ = ["Frozen", "Graph", "Group", "Keeps", "Slice", "positions"]

Keeps = Mapping[str, Tensor]
"""Group name -> what stays: sorted int64 indices, 1-D, or for a ragged child 2-D, a row for every kept index of its parent."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One dimension of one tensor that carries the axis of a group.

    Attributes:
        tensor: Qualified name of the parameter or buffer (the first name of a tied one), or of a constant the export lifted.
        dim: The dimension.
        index: int64 ``[size, per]``: the positions along ``dim`` that belong to each index of the group.
        role: ``out`` (rows that produce the axis), ``in`` (a consumer's columns), ``norm`` (element-wise affine), ``bias``,
            ``buffer``, or ``direct`` (a parameter used by itself: class token, positions).
    """

    tensor: str
    dim: int
    index: Tensor
    role: str


@dataclass(frozen=True, eq=False)
class Group:
    """Slices that leave together: index ``k`` of the group is row ``k`` of ``index`` in every slice.

    Attributes:
        name: ``tensor:dim`` of its first ``out`` slice in model order, with ``#k`` where that dimension holds several axes.
        size: Number of indices.
        slices: The members, in model order.
        frozen: Why nothing of it may go, or ``None``.
        kind: A word for the user: ``channels``, ``heads``, ``kv-heads``, ``head-dims``, ``neurons``, ``width``, ``experts``,
            ``hidden``.
        signature: Equal for groups with the same operators and directions.
        norms: Modules whose statistics span the axis (layer, RMS or group norm, a mean): there removal is not masking.
        parent: Name of the group whose every index may drop other indices of this one, equally many.
        tie: Groups with the same tie keep equal counts.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    frozen: str | None = None
    kind: str = "channels"
    signature: str = ""
    norms: tuple[str, ...] = ()
    parent: str | None = None
    tie: str | None = None


@dataclass(frozen=True)
class Frozen:
    """An axis nothing may be removed from, for the report: where, how long, why, and the operator that said so."""

    axis: str
    size: int
    reason: str
    operator: str


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced model: its groups (prunable ones first), what is frozen, and the exported program they were read from.

    Attributes:
        groups: Prunable groups first, then frozen ones.
        frozen: Every frozen axis of a parameter and every operator without a rule.
        program: The ``torch.export.ExportedProgram``.
        types: Node name -> the dimensions of each tensor it gives (one row per output).
        axes: Group name -> its axis.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    program: torch.export.ExportedProgram
    types: Mapping[str, tuple[tuple[Dim, ...], ...]] = field(repr=False)
    axes: Mapping[str, Axis] = field(repr=False)

    def prunable(self) -> tuple[Group, ...]:
        """The groups of which something may go."""
        return tuple(group for group in self.groups if group.frozen is None)

    def __getitem__(self, name: str) -> Group:
        """The group called ``name``; raises :class:`BadInput` for an unknown one."""
        if name not in self._by_name:
            raise BadInput(f"there is no group {name!r}{near(name, self._by_name)}")
        return self._by_name[name]

    def kept(self, dim: Dim, keeps: Keeps) -> Tensor:
        """int64: the positions of ``dim`` (one of :attr:`types`) that are left under ``keeps``, ascending.

        Raises:
            BadInput: a ragged child keeps other indices per index of its parent, and ``dim`` carries the child alone.
        """
        left = torch.ones(size(dim), dtype=torch.bool)
        for axis in dict.fromkeys(leaves(dim)):
            keep = keeps.get(self._names.get(axis, ""))
            if keep is not None:
                left &= self._left(dim, axis, keep, keeps)
        return left.nonzero().flatten()

    def _left(self, dim: Dim, axis: Axis, keep: Tensor, keeps: Keeps) -> Tensor:
        """bool ``[size(dim)]``: whether ``keep`` leaves each position, as far as ``axis`` is concerned."""
        own, name = labels(dim, axis), self._names[axis]
        if keep.dim() == 1:
            return torch.isin(own, keep) | (own < 0)
        parent = self[name].parent
        if parent is None:
            raise BadInput(f"keeps[{name!r}] has a row per index of a parent, and that group has no parent")
        above = self.axes[parent]
        outer = labels(dim, above)
        if bool(((own >= 0) & (outer < 0)).any()):
            raise BadInput(f"keeps[{name!r}] differ by index of {parent!r}, which does not lie in this dimension")
        allowed = torch.zeros(above.size, axis.size, dtype=torch.bool)
        allowed[keeps.get(parent, torch.arange(above.size))[:, None], keep] = True
        return allowed[outer.clamp(min=0), own.clamp(min=0)] | (own < 0)

    def shape(self, node: str, keeps: Keeps, output: int = 0) -> tuple[int, ...]:
        """The sizes of tensor ``output`` of a node of :attr:`program` once only ``keeps`` is left."""
        return tuple(self.length(dim, keeps) for dim in self.types[node][output])

    def length(self, dim: Dim, keeps: Keeps) -> int:
        """The size of ``dim`` under ``keeps``."""
        if isinstance(dim, Axis):
            keep = keeps.get(self._names.get(dim, ""))
            return dim.size if keep is None else keep.shape[-1]
        if isinstance(dim, Sum):
            return sum(self.length(part, keeps) for part in dim.parts)
        return math.prod(self.length(factor, keeps) for factor in dim.factors)

    @cached_property
    def _names(self) -> dict[Axis, str]:
        return {axis: name for name, axis in self.axes.items()}

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}


def positions(dim: Dim, axis: Axis) -> Tensor:
    """int64 ``[axis.size, per]``: the positions of a resolved ``dim`` that belong to each index of ``axis``, ascending."""
    own = labels(dim, axis)
    order = torch.argsort(own, stable=True)
    return order[int((own < 0).sum()) :].reshape(axis.size, -1)
