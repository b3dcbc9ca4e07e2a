"""The time of a traced forward pass as a function of what every group keeps, from times measured operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import Node

from secateurs.errors import BadInput
from secateurs.graph.groups import Graph
from secateurs.measure.widths import Call, Shaped, TimeTable
from secateurs.planning.multiply_adds import Shapes, operations, operator_name

__all__ = ["LatencyCosts", "Layer", "layers"]

#: Operators besides those that multiply matrices whose time follows the widths, and which hold no width as a literal.
_ALSO = {"batch_norm", "instance_norm", "relu", "relu_", "relu6", "gelu", "silu", "silu_", "hardswish", "hardswish_",
         "hardtanh", "hardtanh_", "sigmoid", "tanh", "leaky_relu", "leaky_relu_", "add", "add_", "mul", "mul_", "cat",
         "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"}  # fmt: skip

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_GROUPS = 6  # the place of the number of groups among their arguments


@dataclass(frozen=True)
class Layer:
    """An operator of the program that is timed: ``name`` of its weight or module, and whether it multiplies matrices."""

    name: str
    node: Node
    counted: bool
    shapes: Shapes

    def call(self, kept: Mapping[str, int]) -> Call:
        """Its call at the shapes it has when so much is kept."""
        arguments = [self._argument(value, kept) for value in self.node.args]
        if operator_name(self.node.target) in _CONVOLUTIONS:
            arguments = self._with_groups(arguments, kept)
        named = tuple((name, self._argument(value, kept)) for name, value in self.node.kwargs.items())
        return Call(self.node.target, tuple(arguments), named)  # type: ignore[arg-type]

    def _argument(self, value: Any, kept: Mapping[str, int]) -> Any:
        if isinstance(value, Node):
            example = value.meta["val"]
            if not isinstance(example, Tensor):
                raise BadInput(f"{self.name!r} takes {value.name!r}, which is no tensor: its time cannot be measured by itself")
            return Shaped(tuple(length(kept) for length in self.shapes(value)), example.dtype)
        return tuple(self._argument(item, kept) for item in value) if isinstance(value, (list, tuple)) else value

    def _with_groups(self, arguments: list[Any], kept: Mapping[str, int]) -> list[Any]:
        """The number of a convolution's groups follows its channels, in a depthwise one for example."""
        if len(arguments) <= _GROUPS:
            return arguments
        image, weight = arguments[0].shape, arguments[1].shape
        if "transpose" in operator_name(self.node.target):
            image = [length(kept) for length in self.shapes(self.node)]
        return [*arguments[:_GROUPS], image[len(image) - len(weight) + 1] // weight[1], *arguments[_GROUPS + 1 :]]


def layers(graph: Graph, names: Sequence[str]) -> list[Layer]:
    """The operators that are timed, in the program's order."""
    shapes, counted = Shapes(graph, names), {operation.node for operation in operations(graph, names)}
    nodes = [n for n in graph.program.graph_module.graph.nodes if n in counted or _timed(n)]
    weights = {**graph.program.graph_signature.inputs_to_parameters}
    return [Layer(_title(node, weights), node, node in counted, shapes) for node in nodes]


def _timed(node: Node) -> bool:
    return node.op == "call_function" and operator_name(node.target) in _ALSO and isinstance(node.meta.get("val"), Tensor)


def _title(node: Node, weights: Mapping[str, str]) -> str:
    """The module that holds its weight, or the node's own name."""
    held = [weights[value.name] for value in node.args if isinstance(value, Node) and value.name in weights]
    return held[0].rpartition(".")[0] if held else node.name


@dataclass(frozen=True)
class LatencyCosts:
    """Seconds of one forward pass as a function of kept counts.

    Attributes:
        layers: what is timed.
        whole: what every group keeps when nothing goes.
        table: measured times.
        rest: seconds that no layer accounts for; they stay the same.
    """

    layers: tuple[Layer, ...]
    whole: Mapping[str, int]
    table: TimeTable
    rest: float = 0.0

    @classmethod
    def of(cls, graph: Graph, whole: Mapping[str, int], seconds: Callable[[], float] | None = None,
           table: TimeTable | None = None) -> LatencyCosts:  # fmt: skip
        """Of a graph; ``seconds`` measures the dense model itself, and what it takes beyond its layers is the rest."""
        timed = cls(tuple(layers(graph, list(whole))), dict(whole), table or TimeTable())
        return timed if seconds is None else cls(timed.layers, timed.whole, timed.table, max(0.0, seconds() - timed(whole)))

    def __call__(self, kept: Mapping[str, int]) -> float:
        """The predicted seconds."""
        counts = {**self.whole, **kept}
        return self.rest + sum(self.table.seconds(layer.call(counts)) for layer in self.layers)
