"""Operators that lay the same entries out anew, and tensors made from nothing."""

from __future__ import annotations

from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given

__all__ = ["RULES"]


def view(call: OnnxCall) -> Given:
    """``Reshape``, ``Flatten``, ``Squeeze``, ``Unsqueeze``: what comes out has the shape that was seen."""
    return call.like("view", self=call.value(0))


def permute(call: OnnxCall) -> Given:
    """Reorder; by default turn round."""
    order = call.onnx.attribute("perm") or list(range(len(call.dims_of(0))))[::-1]
    return call.like("permute", self=call.value(0), dims=order)


def expand(call: OnnxCall) -> Given:
    """Broadcast to a shape, from either side."""
    return call.like("expand", self=call.value(0))


def tile(call: OnnxCall) -> Given:
    """The whole dimension several times."""
    return call.like("repeat", self=call.value(0))


def filled(call: OnnxCall) -> Given:
    """``ConstantOfShape``: one value everywhere."""
    return call.like("zeros")


def numbered(call: OnnxCall) -> Given:
    """``Range``, random numbers, places: every position is its own."""
    return call.like("arange", tensors=[call.value(i) for i in range(len(call.onnx.inputs))])


def triangle(call: OnnxCall) -> Given:
    """``Trilu``: the last two dimensions are numbered."""
    return call.like("tril", self=call.value(0))


def one_hot(call: OnnxCall) -> Given | None:
    """Classes in a new last dimension."""
    if call.onnx.attribute("axis", -1) not in (-1, len(call.dims_of(0))):
        return None
    return call.like("one_hot", self=call.value(0))


RULES = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), view),
    "Transpose": permute,
    "Expand": expand,
    "Tile": tile,
    "ConstantOfShape": filled,
    **dict.fromkeys(("Range", "EyeLike", "NonZero", "RandomNormal", "RandomUniform", "RandomNormalLike"), numbered),
    **dict.fromkeys(("RandomUniformLike", "Bernoulli", "Multinomial", "Shape", "Size"), numbered),
    "Trilu": triangle,
    "OneHot": one_hot,
}
