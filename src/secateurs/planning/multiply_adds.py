"""Multiply-adds of a traced forward pass, operator by operator, as functions of what every group keeps.

The counting rules are those of :func:`secateurs.measure.multiply_adds`: matrix products, convolutions, recurrent layers and
attention; biases, activations and norms are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from secateurs.core.polynomial import Polynomial, product, total
from secateurs.graph.axes import Axis, Dim, Prod
from secateurs.graph.groups import Graph

__all__ = ["Operation", "Shapes", "multiply_adds", "operations", "operator_name"]

Lengths = tuple[Polynomial, ...]


@dataclass(frozen=True)
class Operation:
    """One counted node of the program, and its multiply-adds."""

    node: Node
    work: Polynomial


def multiply_adds(graph: Graph, names: Sequence[str]) -> Polynomial:
    """Of the whole program on its example; only the groups in ``names`` are taken to change."""
    return total(operation.work for operation in operations(graph, names))


def operations(graph: Graph, names: Sequence[str]) -> list[Operation]:
    """Every node that multiplies matrices, in the program's order."""
    shapes = Shapes(graph, names)
    nodes = [node for node in graph.program.graph_module.graph.nodes if node.op == "call_function"]
    ruled = [(node, _RULES.get(operator_name(node.target))) for node in nodes]
    return [Operation(node, rule(node, shapes)) for node, rule in ruled if rule is not None]


class Shapes:
    """The shape of a node's output with every length as a function of kept counts."""

    def __init__(self, graph: Graph, names: Sequence[str]):
        self._types, self._of = graph.types, {id(graph.axes[name]): name for name in names}

    def __call__(self, node: Any, output: int = 0) -> Lengths:
        """Of tensor ``output`` of a node."""
        return tuple(map(self.length, self._types[node.name][output]))

    def groups(self, node: Node) -> set[str]:
        """The groups that the shapes of a node's output and of its arguments depend on."""
        lengths = [length for each in (node, *node.all_input_nodes) for row in self._types[each.name] for length in row]
        return {name for length in lengths for name in self.length(length).groups}

    def length(self, dim: Dim) -> Polynomial:
        """Of a dimension."""
        if isinstance(dim, Axis):
            return Polynomial.of(self._of[id(dim)]) if id(dim) in self._of else Polynomial.constant(dim.size)
        if isinstance(dim, Prod):
            return product(map(self.length, dim.factors))
        return total(map(self.length, dim.parts))


def operator_name(target: Any) -> str:
    """``"conv2d"`` of ``aten.conv2d.default``; empty for what is no operator."""
    schema = getattr(target, "_schema", None)
    return "" if schema is None else schema.name.removeprefix("aten::")


def _convolution(node: Node, shapes: Shapes) -> Polynomial:
    return _once_per_place(shapes(node), shapes(node.args[1]))  # of the output


def _transposed(node: Node, shapes: Shapes) -> Polynomial:
    return _once_per_place(shapes(node.args[0]), shapes(node.args[1]))  # of the input


def _once_per_place(image: Lengths, weight: Lengths) -> Polynomial:
    """Every entry of the weight at every place of every image, with or without a batch."""
    channels = len(image) - len(weight) + 1
    return product((*image[:channels], *image[channels + 1 :], *weight))


def _any_convolution(node: Node, shapes: Shapes) -> Polynomial:
    return (_transposed if node.args[6] else _convolution)(node, shapes)


def _linear(node: Node, shapes: Shapes) -> Polynomial:
    return product((*shapes(node.args[0])[:-1], *shapes(node.args[1])))


def _product_of(first: int) -> Callable[[Node, Shapes], Polynomial]:
    def rule(node: Node, shapes: Shapes) -> Polynomial:
        return product((*shapes(node), shapes(node.args[first])[-1]))

    return rule


def _attention(node: Node, shapes: Shapes) -> Polynomial:
    query, key, value = (shapes(arg) for arg in node.args[:3])
    scores = product((*query[:-1], key[-2]))
    return scores * query[-1] + scores * value[-1]


def _einsum(node: Node, shapes: Shapes) -> Polynomial:
    equation, operands = node.args[0], node.args[1]
    assert isinstance(equation, str) and isinstance(operands, (list, tuple))
    lengths: dict[str, Polynomial] = {}
    for letters, operand in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=True):
        shape = shapes(operand)
        before, dots, after = letters.partition("...")
        extra = [f".{k}" for k in range(len(shape) - len(before) - len(after), 0, -1)] if dots else []
        lengths |= dict(zip([*before, *extra, *after], shape, strict=True))
    return product(lengths.values()) if len(operands) > 1 else Polynomial.constant(0)


def _recurrent(node: Node, shapes: Shapes) -> Polynomial:
    given, weights = node.args[0], next(a for a in node.args[2:] if isinstance(a, (list, tuple)))
    tokens = product(shapes(given)[:-1])
    return total(tokens * product(shapes(weight)) for weight in weights if len(shapes(weight)) == 2)


Rule = Callable[[Node, Shapes], Polynomial]
_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "convolution": _any_convolution,
    "linear": _linear,
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot"), _product_of(0)),
    **dict.fromkeys(("addmm", "baddbmm"), _product_of(1)),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}
