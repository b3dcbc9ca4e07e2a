"""An ONNX model as its nodes and values: what a rule reads of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs.extras import require

__all__ = ["Node", "OnnxFile", "as_array", "as_tensor"]


@dataclass(frozen=True)
class OnnxFile:
    """A model that was read and probed.

    Attributes:
        model: The ``ModelProto``: local functions inlined, constants as initializers, shape arithmetic that comes to the same
            at every size replaced by its value.
        feeds: The inputs of the first probe.
        shapes: The shape that every value had in it.
        others: Inputs of a second probe with other sizes; empty where all sizes are fixed.
        moving: Integers that are computed from sizes -> per entry, whether they change with them (bool), of the shape of the
            value.
        computed: The same -> their values in the first probe.
    """

    model: Any
    feeds: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    moving: Mapping[str, np.ndarray] = field(default_factory=dict)
    computed: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def opset(self) -> int:
        """The version of the standard operators."""
        return max((each.version for each in self.model.opset_import if each.domain in ("", "ai.onnx")), default=1)

    @cached_property
    def nodes(self) -> list[Node]:
        """In the order of computation."""
        return [Node(proto, self) for proto in self.model.graph.node]

    @cached_property
    def inputs(self) -> list[str]:
        """Names of what a caller gives."""
        return [value.name for value in self.model.graph.input]

    @cached_property
    def outputs(self) -> list[str]:
        """Names of what the model returns."""
        return [value.name for value in self.model.graph.output]

    @cached_property
    def initial(self) -> dict[str, np.ndarray]:
        """Initializers by name."""
        return {proto.name: as_array(proto) for proto in self.model.graph.initializer}

    @cached_property
    def state_dict(self) -> dict[str, Tensor]:
        """Initializers as tensors; those of a type that PyTorch has not (strings, 4 bits) are left out."""
        found = {name: as_tensor(value) for name, value in self.initial.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def constants(self) -> dict[str, Tensor]:
        """None: all are initializers."""
        return {}

    @cached_property
    def makers(self) -> dict[str, Node]:
        """Value -> the node that computes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def as_array(proto: Any) -> np.ndarray:
    """The values of a ``TensorProto``."""
    return np.asarray(require("onnx.numpy_helper", "onnx").to_array(proto))


def as_tensor(value: np.ndarray) -> Tensor | None:
    """The same as a tensor, with bfloat16; ``None`` for a type PyTorch lacks."""
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(value).view(np.int16).copy()).view(torch.bfloat16)
    try:
        return torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape).copy())
    except TypeError:
        return None


class Node:
    """One node: its operator, and its attributes and constant inputs by name."""

    def __init__(self, proto: Any, file: OnnxFile) -> None:
        self.proto, self.file = proto, file
        self.operator: str = proto.op_type
        self.domain: str = "" if proto.domain == "ai.onnx" else proto.domain
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.name: str = proto.name or next((name for name in self.outputs if name), proto.op_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; text as text, lists as lists."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = require("onnx.helper", "onnx").get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def given(self, at: int) -> bool:
        """Whether input ``at`` is there."""
        return at < len(self.inputs) and bool(self.inputs[at])

    def constant(self, at: int) -> np.ndarray | None:
        """Input ``at``, if its value is written in the file."""
        return self.file.initial.get(self.inputs[at]) if self.given(at) else None

    def numbers(self, name: str, at: int) -> list[int] | None:
        """Integers that older versions give as attribute ``name`` and newer ones as input ``at``; ``None`` for neither.

        Of a computed input, the values of the first probe.
        """
        own = self.attribute(name)
        if own is not None:
            return [int(n) for n in own] if isinstance(own, Sequence) else [int(own)]
        value = self.constant(at)
        if value is None and self.given(at):
            value = self.file.computed.get(self.inputs[at])
        return None if value is None else [int(n) for n in value.reshape(-1)]

    def moves(self, at: int) -> bool:
        """Whether input ``at`` is computed: from sizes that change, or from data."""
        return self.given(at) and self.constant(at) is None

    def shape(self, at: int) -> list[int]:
        """The shape of input ``at``."""
        return list(self.file.shapes[self.inputs[at]])

    @property
    def captured(self) -> list[str]:
        """What the graphs inside (branches, loop bodies) read from outside."""
        graphs = [a.g for a in self.proto.attribute if a.HasField("g")] + [g for a in self.proto.attribute for g in a.graphs]
        return [name for graph in graphs for name in _read(graph)]

    @property
    def has_graphs(self) -> bool:
        """Whether it runs a graph of its own."""
        return any(a.HasField("g") or a.graphs for a in self.proto.attribute)


def _read(graph: Any) -> list[str]:
    inside = {value.name for value in graph.input} | {proto.name for proto in graph.initializer}
    found: list[str] = []
    for proto in graph.node:
        node = Node(proto, OnnxFile(None, {}, {}))
        found += [name for name in [*node.inputs, *node.captured] if name and name not in inside]
        inside |= set(node.outputs)
    return found + [value.name for value in graph.output if value.name not in inside]
