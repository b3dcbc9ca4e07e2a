"""One pass over an ONNX file: every value gets its dimensions from the rule of the operator that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from secateurs.graph.axes import size
from secateurs.graph.calls import Notes, Typed, fresh
from secateurs.graph.collect import collect
from secateurs.graph.groups import Graph
from secateurs.graph.onnx.call import Env, OnnxCall
from secateurs.graph.onnx.file import Node, OnnxFile
from secateurs.graph.onnx.probing import probe
from secateurs.graph.onnx.reading import read_model
from secateurs.graph.onnx.rules import rule_of
from secateurs.graph.rules import Given
from secateurs.graph.unify import freeze_all
from secateurs.graph.walk import GIVEN, RETURNED, Walked

__all__ = ["file_of", "trace_onnx", "weights"]


def trace_onnx(source: Any, *, inputs: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None) -> Graph:
    """The groups of an ONNX model: which slices must leave together, and what must stay and why.

    The model is run to see its sizes, and typed as a traced PyTorch model is (SPA, 2024, propagates masks over such a graph).
    Tensors of the groups are initializers by name. :attr:`~secateurs.graph.Graph.program` is the
    :class:`~secateurs.graph.onnx.OnnxFile`, whose ``model`` is the same function with its shape arithmetic evaluated.

    Args:
        source: A file, or a ``ModelProto``.
        inputs: Name -> array to run it on; drawn where it is absent.
        sizes: Name of a size that may change -> what it is in the first run.

    Raises:
        BadInput: it cannot be read, or onnxruntime cannot run it; with the reason.
        CorruptFile: it is no valid ONNX model.
        MissingExtra: ONNX is not installed.
    """
    file = probe(read_model(source), inputs, sizes)
    return collect(cast(Any, file), _walk(file))


def file_of(graph: Graph) -> OnnxFile:
    """The file that a graph of :func:`trace_onnx` was read from."""
    return cast(OnnxFile, graph.program)


def weights(graph: Graph) -> dict[str, Tensor]:
    """The initializers that groups speak of."""
    tensors = file_of(graph).state_dict
    carried = dict.fromkeys(piece.tensor for group in graph.groups for piece in group.slices)
    return {name: tensors[name] for name in carried if name in tensors}


def _walk(file: OnnxFile) -> Walked:
    env, found = Env(file), Walked()
    for name in file.inputs:
        env.types[name] = Typed(tuple(fresh(n, GIVEN, name) for n in file.shapes[name]))
    for node in file.nodes:
        if not set(node.outputs) & file.computed.keys():
            rows = _rows(node, env, found.notes)
            env.types |= dict(zip([name for name in node.outputs if name], rows, strict=True))
    for name in file.outputs:
        freeze_all(env[name].dims, RETURNED, name)
    found.tensors, found.used = env.tensors, set(env.tensors)
    found.types = {name: (value.dims,) for name, value in env.types.items()}
    floating = {name for name, value in file.state_dict.items() if value.is_floating_point()}
    found.sorts = {name: "parameter" if name in floating else "buffer" for name in env.tensors}
    return found


def _rows(node: Node, env: Env, notes: Notes) -> list[Typed]:
    """The type of every output; a rule that errs about sizes is treated as none."""
    rule = None if node.has_graphs else rule_of(node)
    if rule is None:
        return _unknown(node, env, notes, "a graph of its own" if node.has_graphs else f"no rule for {_operator(node)}")
    names = [name for name in node.outputs if name]
    rows = _as_rows(rule(OnnxCall(node, env, notes)))
    shapes = [list(env.file.shapes[name]) if name in env.file.shapes else None for name in names]
    if rows is None or [[size(dim) for dim in row.dims] for row in rows] != shapes:
        return _unknown(node, env, notes, f"the rule for {_operator(node)} does not cover this use of it")
    return rows


def _as_rows(given: Given | None) -> list[Typed] | None:
    if given is None:
        return None
    many = isinstance(given, list) and bool(given) and isinstance(given[0], (list, Typed))
    rows: list[Any] = given if many else [given]  # type: ignore[assignment]
    return [row if isinstance(row, Typed) else Typed(tuple(row)) for row in rows]


def _operator(node: Node) -> str:
    return f"{node.domain}.{node.operator}" if node.domain else node.operator


def _unknown(node: Node, env: Env, notes: Notes, reason: str) -> list[Typed]:
    """Freeze every axis that goes in or comes out, and say so."""
    notes.unknown[node.name] = reason
    for name in [*node.inputs, *node.captured]:
        if name in env.file.shapes:
            freeze_all(env[name].dims, reason, node.name)
    return [Typed(tuple(fresh(n, reason, node.name) for n in env.file.shapes.get(name, ()))) for name in node.outputs if name]
