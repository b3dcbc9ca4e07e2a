"""ONNX models built by hand, and two oracles that know nothing of the rules: shuffle a group, and ignore one of its indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from secateurs.apply.onnx import cut, verify_cut
from secateurs.graph.groups import Graph, Group, Slice
from secateurs.graph.onnx import file_of, trace_onnx
from secateurs.graph.onnx.running import largest_difference, run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MICROSOFT = "com.microsoft"


def w(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights no two of which are equal, none near zero."""
    size = int(np.prod(shape))
    values = 0.3 + np.random.default_rng(seed + size).permutation(size) / size
    return (values * np.where(np.arange(size) % 3, 1, -1)).reshape(shape).astype(np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def build(nodes: Sequence[Sequence[Any]], shape: Sequence[int | str], opset: int = 18, kind: Any = None, **initial: Any) -> Any:
    """A model of ``x`` and ``y``; a node is (operator, inputs, outputs, attributes), names with spaces between."""
    h = onnx.helper
    made = []
    for operator, inputs, outputs, *more in nodes:
        domain, _, name = operator.rpartition(".")
        gone = [word.replace("_", "") if word == "_" else word for word in inputs.split(" ")] if inputs else []
        made.append(h.make_node(name, gone, outputs.split(), domain=domain, **(more[0] if more else {})))
    x = h.make_tensor_value_info("x", kind or onnx.TensorProto.FLOAT, list(shape))
    y = h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    held = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in initial.items()]
    graph = h.make_graph(made, "built", [x], [y], held)
    versions = [h.make_opsetid("", opset)]
    if any(node.domain == MICROSOFT for node in made):
        versions.append(h.make_opsetid(MICROSOFT, 1))
    model = h.make_model(graph, opset_imports=versions, ir_version=8 if opset < 21 else 10)
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0]
    rank = len(inferred.type.tensor_type.shape.dim) or 2
    model.graph.output[0].CopyFrom(h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [f"y{d}" for d in range(rank)]))
    return model


def changed(graph: Graph, change: Any, slices: Sequence[Slice]) -> Any:
    """The dense model with the initializer of each slice replaced."""
    model = onnx.ModelProto()
    model.CopyFrom(file_of(graph).model)
    held = {proto.name: proto for proto in model.graph.initializer}
    for piece in slices:
        value = change(torch.from_numpy(np.array(onnx.numpy_helper.to_array(held[piece.tensor]))), piece)
        held[piece.tensor].CopyFrom(onnx.numpy_helper.from_array(value.numpy(), piece.tensor))
    return model


def shuffled(graph: Graph, group: Group) -> Any:
    """Index ``k`` of the group goes where another one was, in all slices."""
    order = torch.arange(group.size).roll(1)

    def shuffle(tensor: torch.Tensor, piece: Slice) -> torch.Tensor:
        place = torch.arange(tensor.shape[piece.dim])
        place[piece.index.flatten()] = piece.index[order].flatten()
        return tensor.index_select(piece.dim, place)

    return changed(graph, shuffle, group.slices)


def ignored(graph: Graph, group: Group, index: int) -> Any:
    """Zeros where consumers read one index of the group."""
    return changed(
        graph, lambda tensor, piece: tensor.index_fill(piece.dim, piece.index[index], 0),
        [piece for piece in group.slices if piece.role == "in"],
    )  # fmt: skip


def check(source: Any, ends: bool = True, **how: Any) -> Graph:
    """Both oracles, and the library's own proof, for every prunable group of ``source``; returns the graph.

    Shuffled: no output may change; one missing member fails it. Ignored: taking an index away gives what the dense model gives
    when its consumers do not read that index, except where norms or attention scores read an axis without weights of their own.
    It is done for the first and the last index, or without ``ends`` for one in the middle.
    """
    graph = trace_onnx(source, **how)
    file = file_of(graph)
    before = run(file.model, file.feeds)
    for group in graph.prunable():
        gap = largest_difference(run(shuffled(graph, group), file.feeds), before)
        assert gap <= 2e-5, f"{group.name} ({group.kind}) shuffled: {gap:.2g}"
        for index in {0, group.size - 1} if ends else {group.size // 2}:
            keeps = {group.name: torch.tensor([k for k in range(group.size) if k != index])}
            smaller = cut(graph, keeps)
            verify_cut(graph, keeps, smaller).require()
            if not group.norms and group.kind != "head-dims" and any(piece.role == "in" for piece in group.slices):
                gap = largest_difference(run(smaller, file.feeds), run(ignored(graph, group, index), file.feeds))
                assert gap <= 2e-5, f"{group.name} ({group.kind}) without {index}: {gap:.2g}"
    return graph


def sizes(graph: Graph) -> list[int]:
    """The sizes of the prunable groups, sorted."""
    return sorted(group.size for group in graph.prunable())
