"""Operators that look at a whole dimension at once."""

from __future__ import annotations

from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given

__all__ = ["RULES"]

NAMES = {
    **dict.fromkeys(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"), "sum"),
    "ReduceMean": "mean",
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"), "amax"),
}


def reduced(call: OnnxCall) -> Given | None:
    """Over ``axes``, an attribute or an input by version; without any over all, or, if ``noop_with_empty_axes``, over none."""
    axes = call.onnx.numbers("axes", 1)
    if axes is None and call.onnx.moves(1):
        return None
    if not axes and call.onnx.attribute("noop_with_empty_axes", 0):
        return call.like("relu", self=call.value(0))
    return call.like(NAMES[call.onnx.operator], self=call.value(0), dim=axes or None)


def pick(call: OnnxCall) -> Given:
    """``ArgMax``, ``ArgMin``."""
    return call.like("argmax", self=call.value(0), dim=call.onnx.attribute("axis", 0))


def along(call: OnnxCall) -> Given:
    """``Softmax`` and its kin: over one dimension, before version 13 over all from there on."""
    dims, old = call.dims_of(0), call.onnx.file.opset < 13
    axis = call.onnx.attribute("axis", 1 if old else -1) % len(dims)
    frozen = dims[axis:] if old else [dims[axis]]
    call.freeze(frozen, f"{call.onnx.operator} over it: removing one entry changes the others")
    return dims


def cumulative(call: OnnxCall) -> Given | None:
    """``CumSum``, whose axis is an input."""
    axis = call.onnx.numbers("axis", 1)
    return None if axis is None else call.like("cumsum", self=call.value(0), dim=axis[0])


def largest(call: OnnxCall) -> Given:
    """``TopK``: values and places."""
    return call.like("topk", self=call.value(0), dim=call.onnx.attribute("axis", -1))


RULES = {
    **dict.fromkeys(NAMES, reduced),
    **dict.fromkeys(("ArgMax", "ArgMin"), pick),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), along),
    "CumSum": cumulative,
    "TopK": largest,
}
