"""From types to groups: the axes the tensors of the model carry, with their members, names, kinds and couplings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch.export import ExportedProgram

from secateurs.graph.axes import Axis, Dim, Prod, Sum, describe, leaves, resolve
from secateurs.graph.coupling import parents
from secateurs.graph.groups import Frozen, Graph, Group, Slice, positions
from secateurs.graph.unify import freeze, freeze_all
from secateurs.graph.walk import Walked

__all__ = ["collect"]

FIXED = {"kernel", "gates"}
"""Reasons that mark what is no structure at all: neither a group nor worth a line of the report."""
STRONGEST = ("experts", "heads", "hidden", "head-dims", "width", "channels", "neurons")


def collect(program: ExportedProgram, walked: Walked) -> Graph:
    """The graph of a walked program."""
    _settle(walked)
    members = _members(walked)
    for axis, slices in members.items():
        if not any(s.role in ("in", "out") for s in slices):
            idle = not any(s.tensor in walked.used for s in slices)
            freeze(axis, "this trace does not use it" if idle else "no operator of this trace multiplies it", "")
    names = {axis: _name(axis, slices, walked) for axis, slices in members.items()}
    above = parents(members, _carriers(walked), walked.notes.mixed)
    groups = [_group(axis, slices, names, above, walked) for axis, slices in members.items()]
    groups = [*[g for g in groups if g.frozen is None], *[g for g in groups if g.frozen is not None]]
    return Graph(tuple(groups), _frozen(names, walked), program, walked.types, {name: axis for axis, name in names.items()})


def _settle(walked: Walked) -> None:
    """Substitute every replaced axis, freeze what cannot be indexed apart, and substitute in the notes too."""
    walked.tensors = {name: tuple(map(resolve, dims)) for name, dims in walked.tensors.items()}
    walked.types = {name: tuple(tuple(map(resolve, dims)) for dims in rows) for name, rows in walked.types.items()}
    for dims in _carriers(walked):
        for dim in dims:
            for axis in _squared(dim):
                freeze(axis, "it meets itself in one dimension", "")
    walked.notes.norms = [(resolve(dim), module) for dim, module in walked.notes.norms]
    walked.notes.kinds = [(resolve(dim), kind) for dim, kind in walked.notes.kinds]
    walked.notes.ties = [tuple(map(resolve, dims)) for dims in walked.notes.ties]
    for dims in walked.notes.ties:
        if len(set(dims)) > 1 and not all(isinstance(dim, Axis) for dim in dims):
            freeze_all(dims, f"{', '.join(describe(dim) for dim in dims)} must keep equal counts", "")


def _carriers(walked: Walked) -> Iterable[tuple[Dim, ...]]:
    yield from walked.tensors.values()
    for rows in walked.types.values():
        yield from rows


def _squared(dim: Dim) -> set[Axis]:
    """Axes that occur in two factors of one product."""
    if isinstance(dim, Axis):
        return set()
    children = dim.parts if isinstance(dim, Sum) else dim.factors
    found = set().union(*(_squared(child) for child in children)) if children else set()
    if isinstance(dim, Prod):
        count = Counter(axis for factor in dim.factors for axis in set(leaves(factor)))
        found |= {axis for axis, n in count.items() if n > 1}
    return found


def _members(walked: Walked) -> dict[Axis, list[Slice]]:
    found: dict[Axis, list[Slice]] = {}
    for name, dims in walked.tensors.items():
        for i, dim in enumerate(dims):
            role = _role(name, i, walked)
            for axis in dict.fromkeys(leaves(dim)):
                if axis.size and axis.frozen not in FIXED:
                    found.setdefault(axis, []).append(Slice(name, i, positions(dim, axis), role))
    return found


def _role(tensor: str, dim: int, walked: Walked) -> str:
    """The first user's word; a table that is also a consumer's matrix (tied embeddings) is a consumer."""
    if walked.sorts[tensor] != "parameter":
        return "buffer"
    words = [role for role, _ in walked.notes.roles.get((tensor, dim), [])]
    return "in" if "in" in words else words[0] if words else "direct"


def _name(axis: Axis, slices: list[Slice], walked: Walked) -> str:
    produced = [s for s in slices if any(role == "out" for role, _ in walked.notes.roles.get((s.tensor, s.dim), []))]
    first = (produced or slices)[0]
    inside = list(dict.fromkeys(leaves(walked.tensors[first.tensor][first.dim])))
    return f"{first.tensor}:{first.dim}" + (f"#{inside.index(axis)}" if len(inside) > 1 else "")


def _group(axis: Axis, slices: list[Slice], names: dict[Axis, str], above: dict[Axis, Axis], walked: Walked) -> Group:
    notes = walked.notes
    operators = [notes.roles.get((s.tensor, s.dim), [("", "")])[0][1] for s in slices]
    kind = _kind(axis, above, walked)
    return Group(
        name=names[axis],
        size=axis.size,
        slices=tuple(slices),
        frozen=axis.frozen,
        kind=kind,
        signature=f"{kind}:" + ",".join(sorted(f"{s.role}.{op}.{s.dim}" for op, s in zip(operators, slices, strict=True))),
        norms=tuple(dict.fromkeys(module for dim, module in notes.norms if axis in leaves(dim))),
        parent=names[above[axis]] if axis in above else None,
        tie=next((f"tie{i}" for i, dims in enumerate(notes.ties) if len(set(dims)) > 1 and axis in dims), None),
    )


def _kind(axis: Axis, above: dict[Axis, Axis], walked: Walked) -> str:
    """The strongest word any rule had for the axis; heads that have heads below them hold keys and values."""
    word = _word(axis, walked)
    shared = word == "heads" and any(parent is axis and _word(child, walked) == "heads" for child, parent in above.items())
    return "kv-heads" if shared else word


def _word(axis: Axis, walked: Walked) -> str:
    words = {kind for dim, kind in walked.notes.kinds if axis in leaves(dim)}
    return next((word for word in STRONGEST if word in words), "channels")


def _frozen(names: dict[Axis, str], walked: Walked) -> tuple[Frozen, ...]:
    found = [Frozen(name, axis.size, axis.frozen, axis.operator) for axis, name in names.items() if axis.frozen]
    return (*found, *[Frozen(node, 0, reason, node) for node, reason in walked.notes.unknown.items()])
