"""Regions of a traced program that only set a mode: their nodes are moved into the program around them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

__all__ = ["TYPED_AS", "inlined"]

TYPED_AS = "typed_as"
"""Key of a node's ``meta``: the name its types are found under, that of the region before its own."""

_no_grad = torch.ops.higher_order.wrap_with_set_grad_enabled
_autocast = torch.ops.higher_order.wrap_with_autocast


def inlined(module: fx.GraphModule, node: fx.Node) -> bool:
    """Replace ``node`` by the nodes of its region, if it is one without effect on values; whether it was.

    Values do not depend on whether gradients are recorded, nor on autocast where that is off.
    """
    if node.target is _no_grad:
        (_, region, *arguments) = node.args
    elif node.target is _autocast and not node.args[2]:
        region, arguments = node.args[4], list(node.args[5:])
    else:
        return False
    assert isinstance(region, fx.Node)
    results = _copied(module, node, str(region.target), list(arguments))
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    if not region.users:
        module.graph.erase_node(region)
    return True


def _copied(module: fx.GraphModule, node: fx.Node, path: str, arguments: list[Any]) -> Any:
    """The region's nodes before ``node``; what it returns."""
    region = operator.attrgetter(path)(module)
    values: dict[fx.Node, Any] = dict(zip(region.graph.find_nodes(op="placeholder"), arguments, strict=True))
    outer = node.meta.get(TYPED_AS, node.name)
    with module.graph.inserting_before(node):
        for inner in region.graph.nodes:
            if inner.op == "output":
                return fx.node.map_arg(inner.args[0], values.__getitem__)
            if inner.op != "placeholder":
                copy = module.graph.node_copy(inner, values.__getitem__)
                copy.meta[TYPED_AS] = f"{outer}.{inner.meta.get(TYPED_AS, inner.name)}"
                if inner.op == "get_attr":
                    copy.target = f"{path}.{inner.target}"
                values[inner] = copy
    raise AssertionError("a graph without an output")
