"""Convolutions: plain, grouped, depthwise, transposed."""

from __future__ import annotations

from secateurs.graph.axes import Dim, multiply, size
from secateurs.graph.calls import Call, Dims

__all__ = ["RULES", "SPATIAL"]

SPATIAL = "a spatial dimension"


def conv(call: Call) -> Dims:
    """``x [N, Cin, ...]``, ``W [Cout, Cin / g, ...]``: channels of ``g`` groups are ``g x c``; ``W.1`` carries ``c``."""
    if call["transposed"]:
        return conv_transpose(call)
    at, group = _prepare(call)
    weight = call.dims("weight")
    call.unify(call.dims("input")[at], multiply([group, weight[1]]))
    call.unify(weight[0], multiply([group, call.fresh(size(weight[0]) // call["groups"])]))
    call.role("weight", 0, "out")
    call.role("weight", 1, "in")
    return _output(call, at, weight[0])


def conv_transpose(call: Call) -> Dims:
    """``x [N, Cin, ...]``, ``W [Cin, Cout / g, ...]``: the roles of the two are swapped."""
    at, group = _prepare(call)
    weight = call.dims("weight")
    call.unify(weight[0], multiply([group, call.fresh(size(weight[0]) // call["groups"])]))
    call.unify(call.dims("input")[at], weight[0])
    call.role("weight", 0, "in")
    call.role("weight", 1, "out")
    return _output(call, at, multiply([group, weight[1]]))


def _prepare(call: Call) -> tuple[int, Dim]:
    """The channel dimension (the first of an example without a batch), and the axis of groups; the spatial ones are frozen."""
    weight, x = call.dims("weight"), call.dims("input")
    at = len(x) - len(weight) + 1
    call.freeze(x[at + 1 :], SPATIAL)
    call.freeze(weight[2:], "kernel")
    return at, call.fresh(call["groups"])


def _output(call: Call, at: int, channels: Dim) -> Dims:
    if call.has("bias"):
        call.unify(call.dims("bias")[0], channels)
        call.role("bias", 0, "bias")
    call.kind(channels, "channels")
    return [*call.dims("input")[:at], channels, *[call.fresh(n, SPATIAL) for n in call.shape[at + 1 :]]]


RULES = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), conv_transpose),
}
