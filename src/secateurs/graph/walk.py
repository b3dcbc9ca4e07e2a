"""One pass over an exported program: every value gets its dimensions from the rule of the operator that made it.

Unification makes a backward pass unnecessary: a later use that refines an axis refines it wherever it was carried before.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from secateurs.graph.axes import Dim, size
from secateurs.graph.calls import Call, Notes, Origin, Typed, fresh, shape_of
from secateurs.graph.rules import rule_for
from secateurs.graph.unify import freeze, freeze_all

__all__ = ["Walked", "walk"]

RETURNED = "the model returns it"
GIVEN = "an input of the model"
TENSORS = {InputKind.PARAMETER: "parameter", InputKind.BUFFER: "buffer", InputKind.CONSTANT_TENSOR: "constant"}


@dataclass
class Walked:
    """What the pass found out.

    Attributes:
        tensors: Name -> dimensions of every parameter, buffer and lifted constant, in the program's order.
        sorts: Name -> ``parameter``, ``buffer`` or ``constant``.
        types: Node name -> dimensions of each tensor it gives.
        notes: Roles, norms, kinds, ties, unknown operators.
        used: Names of the tensors something reads.
    """

    tensors: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    sorts: dict[str, str] = field(default_factory=dict)
    types: dict[str, tuple[tuple[Dim, ...], ...]] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    used: set[str] = field(default_factory=set)


def walk(program: ExportedProgram, first_name: Mapping[str, str]) -> Walked:
    """Type ``program``; ``first_name`` maps the further names of tied tensors to their first one."""
    found = Walked()
    env = _inputs(program, first_name, found)
    _run(program.graph_module, env, found, "")
    for spec in program.graph_signature.output_specs:
        kept = spec.kind in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION)
        for dims in found.types.get(getattr(spec.arg, "name", ""), ()) if kept else ():
            freeze_all(dims, RETURNED, getattr(spec.arg, "name", ""))
    return found


def _inputs(program: ExportedProgram, first_name: Mapping[str, str], found: Walked) -> dict[fx.Node, Any]:
    """The types of the placeholders: axes of their own for tensors of the model, frozen ones for what a caller gives."""
    env: dict[fx.Node, Any] = {}
    specs = {getattr(spec.arg, "name", ""): spec for spec in program.graph_signature.input_specs}
    for node in program.graph.find_nodes(op="placeholder"):
        value, spec = node.meta.get("val"), specs[node.name]
        if not isinstance(value, torch.Tensor):
            continue
        shape = shape_of(value)
        if spec.kind in TENSORS and spec.target is not None:
            name = first_name.get(spec.target, spec.target)
            found.tensors.setdefault(name, tuple(fresh(n) for n in shape))
            found.sorts.setdefault(name, TENSORS[spec.kind])
            found.used |= {name} if node.users else set()
            env[node] = Typed(found.tensors[name], Origin(name, tuple(range(len(shape)))))
        else:
            env[node] = Typed(tuple(fresh(n, GIVEN, node.name) for n in shape))
        found.types[node.name] = (env[node].dims,)
    return env


def _run(module: fx.GraphModule, env: dict[fx.Node, Any], found: Walked, prefix: str) -> Any:
    """Type every node of ``module`` (a nested one's names get a prefix); returns what it returns."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            env[node] = _value(module, node, env, found, prefix)
            found.types[prefix + node.name] = _rows(env[node])
        elif node.op == "output":
            return [env.get(value) for value in node.args[0]]
    return None


def _rows(value: Any) -> tuple[tuple[Dim, ...], ...]:
    if isinstance(value, Typed):
        return (value.dims,)
    return tuple(item.dims for item in value if isinstance(item, Typed)) if isinstance(value, (list, tuple)) else ()


def _value(module: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any], found: Walked, prefix: str) -> Any:
    if node.target is operator.getitem:
        whole, which = env.get(node.args[0]), node.args[1]  # type: ignore[arg-type]
        return whole[which] if isinstance(whole, list) and isinstance(which, int) else None
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return _nested(module, node, env, found, prefix)
    if not any(isinstance(v, torch.Tensor) for v in _values(node)):
        return None  # a size, an assertion
    if not isinstance(node.target, torch._ops.OpOverload):
        return _unknown(node, env, found, f"{node.target} is no operator of PyTorch")
    name = node.target._schema.name
    rule = rule_for(name)
    if rule is None:
        return _unknown(node, env, found, f"no rule for {name}")
    return _checked(node, rule(Call(node, env, found.notes)), env, found)


def _values(node: fx.Node) -> Sequence[Any]:
    value = node.meta.get("val")
    return value if isinstance(value, (list, tuple)) else [value]


def _checked(node: fx.Node, given: Any, env: dict[fx.Node, Any], found: Walked) -> Any:
    """The rule's answer, if its sizes are those the operator has; a rule that errs is treated as none."""
    many = isinstance(given, list) and bool(given) and isinstance(given[0], (list, Typed))
    rows = [row if isinstance(row, Typed) else Typed(tuple(row)) for row in (given if many else [given])]
    shapes = [shape_of(v) if isinstance(v, torch.Tensor) else None for v in _values(node)]
    read = {user.args[1] for user in node.users if user.target is operator.getitem} if len(shapes) > 1 else {0}
    for i, (row, shape) in enumerate(zip(rows, shapes, strict=False)):
        if shape is not None and i in read and [size(dim) for dim in row.dims] != shape:
            return _unknown(node, env, found, f"the rule for {node.target} does not cover this use of it")
    return rows if isinstance(node.meta.get("val"), (list, tuple)) else rows[0]


def _unknown(node: fx.Node, env: dict[fx.Node, Any], found: Walked, reason: str) -> Any:
    """Freeze every axis that goes in or comes out, and say so."""
    found.notes.unknown[node.name] = reason
    _freeze_value([env.get(source) for source in node.all_input_nodes], reason, node.name)
    rows = [
        Typed(tuple(fresh(n, reason, node.name) for n in shape_of(v))) if isinstance(v, torch.Tensor) else None
        for v in _values(node)
    ]
    return rows if isinstance(node.meta.get("val"), (list, tuple)) else rows[0]


def _freeze_value(value: Any, reason: str, name: str) -> None:
    if isinstance(value, Typed):
        for dim in value.dims:
            freeze(dim, reason, name)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _freeze_value(item, reason, name)


def _nested(module: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any], found: Walked, prefix: str) -> Any:
    """A region that only changes the mode (gradients, autocast) is walked in place; any other one is unknown."""
    bodies = [a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
    if not str(node.target).startswith("wrap_with_") or len(bodies) != 1:
        return _unknown(node, env, found, f"control flow: {node.target}")
    body = getattr(module, str(bodies[0].target))
    given = node.args[node.args.index(bodies[0]) + 1 :]
    inner = dict(zip(body.graph.find_nodes(op="placeholder"), (env.get(a) for a in given), strict=True))  # type: ignore[arg-type]
    rows = _run(body, inner, found, f"{prefix}{node.name}.")
    return rows if isinstance(node.meta.get("val"), (list, tuple)) else rows[0]
