"""A copy of an ONNX model that is being changed, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.graph.axes import Dim
from secateurs.graph.groups import Graph, Keeps
from secateurs.graph.onnx.file import Node, OnnxFile, as_array

__all__ = ["Editor", "Kept", "to_array"]


class Kept:
    """Which positions of each dimension of each value remain."""

    def __init__(self, graph: Graph, keeps: Keeps) -> None:
        self.graph = graph
        self.keeps = {name: keep for name, keep in keeps.items() if keep.shape[-1] < graph[name].size}
        self._seen: dict[Dim, Tensor | None] = {}

    def of(self, value: str, dim: int) -> Tensor | None:
        """int64, ascending, or ``None`` where all do; -1 throughout where only their number is the same everywhere."""
        dims = self.graph.types[value][0] if value in self.graph.types else ()
        if not dims:
            return None
        kind = dims[dim]
        if kind not in self._seen:
            self._seen[kind] = self._remaining(kind)
        return self._seen[kind]

    def _remaining(self, dim: Dim) -> Tensor | None:
        try:
            left = self.graph.kept(dim, self.keeps)
        except BadInput:  # a ragged child on a dimension without its parent
            return torch.full((self.graph.length(dim, self.keeps),), -1)
        whole = self.graph.length(dim, {})
        return None if len(left) == whole else left

    def size(self, value: str, dim: int) -> int:
        """The new size of a dimension, as seen in the first probe."""
        return self.graph.length(self.graph.types[value][0][dim], self.keeps)

    def rank(self, value: str) -> int:
        """The number of dimensions."""
        return len(self.graph.types[value][0]) if value in self.graph.types else 0

    def touched(self, node: Node) -> bool:
        """Whether anything is removed from an input or output of ``node``."""
        values = [name for name in (*node.inputs, *node.outputs) if name]
        return any(self.of(name, d) is not None for name in values for d in range(self.rank(name)))


class Editor:
    """The model, its nodes in their new order, and its new initializers."""

    def __init__(self, file: OnnxFile) -> None:
        onnx = require("onnx", "onnx")
        self.onnx = onnx
        self.model = onnx.ModelProto()
        self.model.CopyFrom(file.model)
        self._nodes: list[Any] = []
        self._after: list[Any] = []
        self._count = 0
        self._readers = Counter(name for node in file.nodes for name in node.inputs)
        self._initial = {proto.name: proto for proto in self.model.graph.initializer}

    def each(self) -> Iterator[Any]:
        """Every node, in order; what is added meanwhile comes before or after it."""
        for proto in list(self.model.graph.node):
            self._after = []
            yield proto
            self._nodes += [proto, *self._after]
        del self.model.graph.node[:]
        self.model.graph.node.extend(self._nodes)

    def name(self, word: str) -> str:
        """A new name."""
        self._count += 1
        return f"kept.{word}.{self._count}"

    def before(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node before the present one; returns the name of what it gives."""
        out = self.name(operator.lower())
        self._nodes.append(self.onnx.helper.make_node(operator, list(inputs), [out], name=out, **attributes))
        return out

    def after(self, proto: Any, operator: str, more: Sequence[str], **attributes: Any) -> None:
        """Let what the present node gives first, or gave after the last such change, go through another operator."""
        last = self._after[-1] if self._after else proto
        out, between = last.output[0], self.name(operator.lower())
        last.output[0] = between
        self._after.append(self.onnx.helper.make_node(operator, [between, *more], [out], name=f"{between}.of", **attributes))

    def constant(self, value: np.ndarray, word: str) -> str:
        """A new initializer; returns its name."""
        name = self.name(word)
        self.model.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def integers(self, values: Sequence[int], word: str) -> str:
        """A new list of int64."""
        return self.constant(np.asarray(list(values), dtype=np.int64), word)

    def give(self, proto: Any, at: int, name: str) -> None:
        """Let ``name`` be input ``at``."""
        while len(proto.input) <= at:
            proto.input.append("")
        proto.input[at] = name

    def set(self, proto: Any, **attributes: Any) -> None:
        """Set attributes; ``None`` removes one."""
        kept = [a for a in proto.attribute if a.name not in attributes]
        fresh = [self.onnx.helper.make_attribute(name, value) for name, value in attributes.items() if value is not None]
        del proto.attribute[:]
        proto.attribute.extend([*kept, *fresh])

    def replace(self, name: str, value: np.ndarray) -> None:
        """Other values for an initializer."""
        fresh = self.onnx.numpy_helper.from_array(value, name)
        self._initial[name].CopyFrom(fresh)

    def scaled(self, proto: Any, at: int, factor: float) -> None:
        """Multiply the weight at input ``at``, for this node alone."""
        name = proto.input[at]
        old = as_array(self._initial[name])
        new = (old.astype(np.float64) * factor).astype(old.dtype)
        if self._readers[name] == 1:
            self.replace(name, new)
        else:
            proto.input[at] = self.constant(new, name)


def to_array(value: Tensor, like: np.ndarray) -> np.ndarray:
    """A tensor as an array of the type of ``like`` (bfloat16 too)."""
    if value.dtype == torch.bfloat16:
        return value.contiguous().view(torch.int16).numpy().view(like.dtype)
    return np.asarray(value.contiguous().numpy())
