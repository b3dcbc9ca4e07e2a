"""Parameters, bytes and multiply-adds of an ONNX file as exact functions of what every group keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateurs.core.polynomial import Polynomial, product, total
from secateurs.graph.groups import Graph
from secateurs.graph.onnx import file_of, weights
from secateurs.graph.onnx.file import Node
from secateurs.planning.group_costs import Costs, tensor_entries
from secateurs.planning.multiply_adds import Shapes

__all__ = ["onnx_costs"]

Lengths = Callable[[str], tuple[Polynomial, ...]]


def onnx_costs(graph: Graph, names: Sequence[str]) -> Costs:
    """Count the initializers that operators multiply or add, shared ones once, and the work of the first probe's sizes.

    Only the groups in ``names`` are taken to change. Matrix products, convolutions, recurrent layers and attention are counted;
    biases, activations and norms are not.
    """
    groups, tensors = [graph[name] for name in names], weights(graph)
    entries = tensor_entries(tensors, groups)
    return Costs(
        total(entries[name] for name, value in tensors.items() if value.is_floating_point()),
        _multiply_adds(graph, names),
        total(entries[name] * Polynomial.constant(value.element_size()) for name, value in tensors.items()),
        {group.name: group.size for group in groups},
    )


def _multiply_adds(graph: Graph, names: Sequence[str]) -> Polynomial:
    shapes = Shapes(graph, names)

    def lengths(value: str) -> tuple[Polynomial, ...]:
        return tuple(map(shapes.length, graph.types[value][0]))

    nodes = file_of(graph).nodes
    return total(_RULES[node.operator](node, lengths) for node in nodes if node.operator in _RULES and _typed(node, graph))


def _typed(node: Node, graph: Graph) -> bool:
    return all(name in graph.types for name in (*node.inputs[:3], *node.outputs[:1]) if name)


def _conv(node: Node, lengths: Lengths) -> Polynomial:
    """Every entry of the weight at every place of the output, of the input where it is transposed."""
    image = lengths(node.inputs[0] if node.operator == "ConvTranspose" else node.outputs[0])
    return product((image[0], *image[2:], *lengths(node.inputs[1])))


def _matmul(node: Node, lengths: Lengths) -> Polynomial:
    inner = lengths(node.inputs[0])[0 if node.attribute("transA", 0) else -1]
    return product((*lengths(node.outputs[0]), inner))


def _einsum(node: Node, lengths: Lengths) -> Polynomial:
    found: dict[str, Polynomial] = {}
    for letters, name in zip(node.attribute("equation").replace(" ", "").split("->")[0].split(","), node.inputs, strict=True):
        if "." in letters:
            return product((*lengths(node.outputs[0]), lengths(node.inputs[0])[-1]))
        found |= dict(zip(letters, lengths(name), strict=True))
    return product(found.values()) if len(node.inputs) > 1 else Polynomial.constant(0)


def _recurrent(node: Node, lengths: Lengths) -> Polynomial:
    tokens = product(lengths(node.inputs[0])[:2])
    return total(tokens * product(lengths(node.inputs[at])) for at in (1, 2))


def _attention(node: Node, lengths: Lengths) -> Polynomial:
    """Queries by keys, then weights by values."""
    query, key, value = (lengths(node.inputs[at]) for at in range(3))
    heads = query[-3:-2] if len(query) == 4 else ()
    return total(product((query[0], *heads, query[-2], key[-2], width)) for width in (query[-1], value[-1]))


_RULES: dict[str, Callable[[Node, Lengths], Polynomial]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    **dict.fromkeys(("Gemm", "MatMul"), _matmul),
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
}
