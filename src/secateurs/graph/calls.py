"""What a rule sees of one operator call, and what rules write down beside the types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from secateurs.graph.axes import ONE, Dim, axis, size
from secateurs.graph.unify import freeze_all, unify

__all__ = [
    "UNKNOWN_SIZE",
    "Call",
    "Dims",
    "Notes",
    "Origin",
    "Typed",
    "broadcast",
    "fresh",
    "module_of",
    "number_of",
    "shape_of",
]

Dims = list[Dim]


@dataclass(frozen=True)
class Origin:
    """The model tensor that a value is (part of): its dimension ``i`` is (part of) dimension ``source[i]``, if of any."""

    tensor: str
    source: tuple[int | None, ...]


@dataclass(frozen=True)
class Typed:
    """The dimensions of one value, and the model tensor it is, if it is one."""

    dims: tuple[Dim, ...]
    origin: Origin | None = None


@dataclass
class Notes:
    """What rules know beside the types."""

    roles: dict[tuple[str, int], list[tuple[str, str]]] = field(default_factory=dict)
    """(tensor, dimension) -> (role, operator) of every user, in order."""
    norms: list[tuple[Dim, str]] = field(default_factory=list)
    """Dimensions spanned by a module's statistics."""
    kinds: list[tuple[Dim, str]] = field(default_factory=list)
    ties: list[tuple[Dim, ...]] = field(default_factory=list)
    """Dimensions that keep equal counts."""
    mixed: list[tuple[tuple[Dim, ...], tuple[Dim, ...]]] = field(default_factory=list)
    """Dimensions of a value along which an operator mixes or moves positions, and all dimensions of that value."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Node -> why its operator has no rule here."""


UNKNOWN_SIZE = 8191
"""Stands for a size that depends on data, in arithmetic too; a prime, so that no view can mistake it for another one."""


def shape_of(value: torch.Tensor) -> list[int]:
    """The sizes of a fake tensor; a symbolic one is taken at its example's value."""
    return [number_of(n) for n in value.shape]


def number_of(n: int | torch.SymInt) -> int:
    """A size as a number."""
    if isinstance(n, int):
        return n
    env = n.node.shape_env
    known = env.backed_var_to_val if hasattr(env, "backed_var_to_val") else env.var_to_val  # older PyTorch
    return int(n.node.expr.subs({symbol: known.get(symbol, UNKNOWN_SIZE) for symbol in n.node.expr.free_symbols}))


def fresh(n: int, reason: str | None = None, operator: str = "") -> Dim:
    """A new axis of ``n``, frozen if a reason is given."""
    return axis(n, reason, operator)


def module_of(node: fx.Node) -> tuple[str, str]:
    """Qualified name and class of the module whose forward made ``node``; outside any, the node's own name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return node.name, ""
    name, kind = stack[-1]
    return str(name).removeprefix("L['self']").removeprefix("."), str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def broadcast(operands: Sequence[Sequence[Dim]], operator: str) -> Dims:
    """The dimensions of an element-wise result: right-aligned and unified; a size of 1 beside ``n`` couples nothing."""
    rank = max((len(dims) for dims in operands), default=0)
    out: Dims = [ONE] * rank
    for dims in operands:
        for i, dim in enumerate(dims, start=rank - len(dims)):
            if size(dim) == 1:
                continue
            if size(out[i]) == 1:
                out[i] = dim
            else:
                unify(out[i], dim, operator)
    return out


class Call:
    """One node of the program: its arguments by name, the types of its tensors, and the notes."""

    def __init__(self, node: fx.Node, env: dict[fx.Node, Any], notes: Notes) -> None:
        self.node, self.env, self.notes = node, env, notes
        schema = node.target._schema  # type: ignore[union-attr]
        self.operator = schema.name.partition("::")[2]
        self.arguments: dict[str, Any] = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        self.arguments |= {a.name: value for a, value in zip(schema.arguments, node.args, strict=False)}
        self.arguments |= node.kwargs

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def typed(self, value: Any) -> Typed | None:
        """The type of an argument that is a tensor, else ``None``."""
        found = self.env.get(value) if isinstance(value, fx.Node) else None
        return found if isinstance(found, Typed) else None

    def dims(self, name: str) -> Dims:
        """The dimensions of the tensor argument ``name`` (of none: no dimensions)."""
        found = self.typed(self[name])
        return list(found.dims) if found else []

    def has(self, name: str) -> bool:
        """Whether the tensor argument ``name`` was given."""
        return self.typed(self[name]) is not None

    def tensors(self) -> list[Typed]:
        """The types of all tensor arguments, inside lists too."""
        return [found for node in self.node.all_input_nodes for found in self._all(self.env.get(node))]

    def _all(self, value: Any) -> list[Typed]:
        if isinstance(value, (list, tuple)):
            return [found for item in value for found in self._all(item)]
        return [value] if isinstance(value, Typed) else []

    def listed(self, name: str) -> list[Dims]:
        """The dimensions of each tensor of a list argument."""
        found = [self.typed(value) for value in self[name]]
        return [list(item.dims) for item in found if item is not None]

    @property
    def outputs(self) -> list[list[int]]:
        """The shape of every tensor the call gives."""
        value = self.node.meta.get("val")
        values = value if isinstance(value, (list, tuple)) else [value]
        return [shape_of(v) if isinstance(v, torch.Tensor) else [] for v in values]

    @property
    def shape(self) -> list[int]:
        """The shape of the first one."""
        return self.outputs[0]

    def unify(self, a: Dim, b: Dim) -> None:
        """:func:`secateurs.graph.unify.unify` in this operator's name."""
        unify(a, b, self.node.name)

    def freeze(self, dims: Sequence[Dim], reason: str) -> None:
        """Freeze ``dims`` in this operator's name."""
        freeze_all(dims, reason, self.node.name)

    def fresh(self, n: int, reason: str | None = None) -> Dim:
        """A new axis, frozen in this operator's name if a reason is given."""
        return fresh(n, reason, self.node.name)

    def role(self, name: str, dim: int, role: str) -> None:
        """Note what dimension ``dim`` of argument ``name`` is for, where that argument is a tensor of the model."""
        self.role_of(self.typed(self[name]), dim, role)

    def role_of(self, value: Typed | None, dim: int, role: str) -> None:
        """:meth:`role` for a value."""
        if value is None or value.origin is None:
            return
        source = value.origin.source[dim]
        if source is not None:
            self.notes.roles.setdefault((value.origin.tensor, source), []).append((role, self.operator))

    def spans(self, dims: Sequence[Dim]) -> None:
        """Note that a norm's statistics span ``dims``; outside a norm nobody could repair them, so they are frozen."""
        name, kind = module_of(self.node)
        if "norm" in kind.lower():
            self.notes.norms.extend((dim, name) for dim in dims)
        else:
            self.freeze(dims, f"{self.operator} over it outside a norm: removing one entry changes the result")

    def mixes(self, dims: Sequence[Dim], value: Sequence[Dim]) -> None:
        """Note that positions along ``dims`` of a ``value`` of these dimensions meet: all must lack the same indices."""
        self.notes.mixed.append((tuple(dims), tuple(value)))

    def derived(self, dims: Sequence[Dim], order: Sequence[int | None], name: str = "self") -> Typed:
        """``dims``, of which each is (part of) dimension ``order[i]`` of argument ``name``: part of a weight is a weight."""
        value = self.typed(self[name])
        origin = value.origin if value else None
        source = tuple(None if i is None or origin is None else origin.source[i] for i in order)
        return Typed(tuple(dims), origin and Origin(origin.tensor, source))

    def kind(self, dim: Dim, word: str) -> None:
        """Note what a user would call ``dim``."""
        self.notes.kinds.append((dim, word))
