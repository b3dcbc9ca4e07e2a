"""One ONNX node as the call of an operator of PyTorch, whose rule then types it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateurs.graph.axes import Dim
from secateurs.graph.calls import Call, Notes, Origin, Typed, fresh
from secateurs.graph.onnx.file import Node, OnnxFile
from secateurs.graph.rules import RULES, Given

__all__ = ["Env", "OnnxCall", "Value"]

COMPUTED = "a size"
HELD = "its type of numbers is not supported"


@dataclass(frozen=True)
class Value:
    """An argument that is a tensor: its name in the file."""

    name: str


class Env:
    """The types of values met so far; initializers get theirs when they are first used."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.types: dict[str, Typed] = {}
        self.tensors: dict[str, tuple[Dim, ...]] = {}

    def __getitem__(self, name: str) -> Typed:
        if name not in self.types:
            self.types[name] = self._first(name)
        return self.types[name]

    def _first(self, name: str) -> Typed:
        shape = self.file.shapes.get(name, ())
        if name not in self.file.initial:
            return Typed(tuple(fresh(n, COMPUTED, name) for n in shape))
        reason = None if name in self.file.state_dict else HELD
        self.tensors[name] = tuple(fresh(n, reason, name) for n in shape)
        return Typed(self.tensors[name], Origin(name, tuple(range(len(shape)))))


class OnnxCall(Call):
    """What a rule sees: the node's tensors under the names that PyTorch's operator has for them.

    ``arguments`` hold :class:`Value` or :class:`~secateurs.graph.calls.Typed` for tensors, lists of them, and plain settings.
    """

    def __init__(self, node: Node, env: Env, notes: Notes, operator: str = "", arguments: Mapping[str, Any] | None = None,
                 shapes: Sequence[Sequence[int]] | None = None) -> None:  # fmt: skip
        self.onnx, self.values, self.notes = node, env, notes
        self.node: Any = node
        self.operator, self.arguments = operator, dict(arguments or {})
        self._shapes = shapes

    def typed(self, value: Any) -> Typed | None:
        """The type of an argument that is a tensor, else ``None``."""
        if isinstance(value, Typed):
            return value
        return self.values[value.name] if isinstance(value, Value) else None

    def tensors(self) -> list[Typed]:
        """The types of all tensor arguments, inside lists too."""
        flat = [item for a in self.arguments.values() for item in (a if isinstance(a, list) else [a])]
        return [found for item in flat if (found := self.typed(item)) is not None]

    @property
    def outputs(self) -> list[list[int]]:
        """The shape of every tensor the call gives."""
        if self._shapes is not None:
            return [list(shape) for shape in self._shapes]
        return [list(self.onnx.file.shapes.get(name, ())) for name in self.onnx.outputs if name]

    def spans(self, dims: Sequence[Dim]) -> None:
        """Note that the node's statistics span ``dims``, as those of a norm do; a bare mean freezes them."""
        if "Norm" in self.onnx.operator or self.of_squares:
            self.notes.norms.extend((dim, self.onnx.name) for dim in dims)
        else:
            self.freeze(dims, "a mean over it outside a norm: removing one entry changes the result")

    @property
    def of_squares(self) -> bool:
        """Whether the node averages the squares of what no mean was taken from: an RMS norm written out."""
        maker = self.onnx.file.makers.get(self.onnx.inputs[0])
        if self.onnx.operator != "ReduceMean" or maker is None:
            return False
        power = maker.constant(1) if maker.operator == "Pow" else None
        square = power is not None and power.size == 1 and float(power.reshape(())) == 2
        if not square and not (maker.operator == "Mul" and maker.inputs[0] == maker.inputs[1]):
            return False
        source = self.onnx.file.makers.get(maker.inputs[0])
        return source is None or source.operator != "Sub"

    def value(self, at: int) -> Value | None:
        """Input ``at`` as an argument."""
        return Value(self.onnx.inputs[at]) if self.onnx.given(at) else None

    def dims_of(self, at: int) -> list[Dim]:
        """The dimensions of input ``at``."""
        return list(self.values[self.onnx.inputs[at]].dims) if self.onnx.given(at) else []

    def like(self, operator: str, /, *, shapes: Sequence[Sequence[int]] | None = None, **arguments: Any) -> Given:
        """What the rule of PyTorch's ``operator`` says of these arguments (and output shapes, where not those of the node)."""
        return RULES[operator](OnnxCall(self.onnx, self.values, self.notes, operator, arguments, shapes))

    def turned(self, at: int, order: Sequence[int]) -> Typed:
        """Input ``at`` with its dimensions in another order."""
        self.arguments["turned"] = self.value(at)
        dims = self.dims_of(at)
        return self.derived([dims[i] for i in order], order, "turned")
