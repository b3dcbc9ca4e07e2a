"""Where zero does not stay zero: a sum may take in what the entries of a removed index have become.

A masked model has zeros in its tensors, and a removed index is one whose entries are gone. The two agree where a sum over the
axis meets zeros: consumers' columns are zero themselves, but a plain sum, or a product of two activations, reads what is there.
After a sigmoid, an added constant or an expanded dimension that is a number like any other, so an axis that is summed there
keeps all of its indices. An operator that is not known here keeps zeros.
"""

from __future__ import annotations

import torch
from torch import fx
from torch.export import ExportedProgram

from secateurs.graph.axes import Axis, leaves, resolve
from secateurs.graph.unify import freeze
from secateurs.graph.walk import Walked

__all__ = ["freeze_sums"]

LIFTS = """
sigmoid hardsigmoid special_expit log_sigmoid exp exp2 cos cosh acos softplus reciprocal rsqrt log log2 log10 erfc lgamma
digamma sinc logical_not ones_like rand_like randn_like softmax log_softmax _softmax _log_softmax
"""
LIFTING = frozenset(LIFTS.split())
"""Operators of one tensor that make something else of zero."""
ADDS = {"add", "add_", "sub", "sub_", "subtract", "rsub"}
SUMS = {"sum", "nansum", "norm", "linalg_vector_norm"}
PAIRS = {"matmul", "bmm", "mm", "mv", "dot"}
PRODUCTS = {*PAIRS, "mul", "mul_", "multiply", "linear", "conv1d", "conv2d", "conv3d", "scaled_dot_product_attention"}
EMPTY = {"zeros", "new_zeros", "zeros_like", "empty", "new_empty", "empty_like"}
Axes = frozenset[Axis]
NONE: Axes = frozenset()


def freeze_sums(program: ExportedProgram, walked: Walked) -> None:
    """Freeze every axis that is summed where its zeroed entries are not zero."""
    lifted: dict[fx.Node, Axes] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        operator = node.target._schema.name.partition("::")[2]
        lifted[node] = _lifted(node, operator, lifted, walked)
        for axis in _summed(node, operator, lifted, walked):
            freeze(axis, f"{operator} over it, where what is zero before has become something else", node.name)


def _axes(node: fx.Node, walked: Walked) -> Axes:
    return frozenset(leaf for row in walked.types.get(node.name, ()) for dim in row for leaf in leaves(resolve(dim)))


def _lifted(node: fx.Node, operator: str, lifted: dict[fx.Node, Axes], walked: Walked) -> Axes:
    """The axes of a value whose zeroed indices are not zero in it."""
    out, inputs = _axes(node, walked), node.all_input_nodes
    carried = frozenset[Axis]().union(*(_axes(source, walked) for source in inputs))
    new = NONE if operator in EMPTY else out - carried  # made here, as by expand: nothing has zeroed it
    if operator in LIFTING:
        return out
    before = frozenset[Axis]().union(*(lifted.get(source, NONE) for source in inputs))
    if operator in ADDS:
        return out & (before | new | _added_to(node, inputs, carried, walked))
    if operator in PRODUCTS:
        before = frozenset(axis for axis in before if _everywhere(axis, inputs, lifted, walked))
    elif operator in ("div", "divide", "true_divide") and isinstance(node.args[0], fx.Node):
        before = lifted.get(node.args[0], NONE) | (carried - _axes(node.args[0], walked))
    return out & (before | new)


def _added_to(node: fx.Node, inputs: list[fx.Node], carried: Axes, walked: Walked) -> Axes:
    """The axes along which one operand of a sum is a constant."""
    if any(isinstance(value, (int, float)) and value for value in node.args):
        return carried
    return carried - frozenset.intersection(*(_axes(source, walked) for source in inputs))


def _summed(node: fx.Node, operator: str, lifted: dict[fx.Node, Axes], walked: Walked) -> list[Axis]:
    """The axes that a node sums over although none of its operands is zero there."""
    if operator not in SUMS and operator not in PAIRS:
        return []
    inputs = node.all_input_nodes
    gone = frozenset[Axis]().union(*(_axes(source, walked) for source in inputs)) - _axes(node, walked)
    return [axis for axis in gone if axis.frozen is None and _everywhere(axis, inputs, lifted, walked)]


def _everywhere(axis: Axis, inputs: list[fx.Node], lifted: dict[fx.Node, Axes], walked: Walked) -> bool:
    return all(axis in lifted.get(source, NONE) for source in inputs if axis in _axes(source, walked))
