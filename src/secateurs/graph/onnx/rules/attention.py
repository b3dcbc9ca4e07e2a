"""Attention as one operator, and rotary positions."""

from __future__ import annotations

from secateurs.graph.axes import Dim, multiply, size
from secateurs.graph.calls import Typed
from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given

__all__ = ["RULES"]


def attention(call: OnnxCall) -> Given | None:
    """``Attention`` (version 23) without a cache: ``[B, H, S, D]``, or ``[B, S, H x D]`` with the heads as attributes."""
    if any(call.onnx.given(at) for at in (4, 5, 6)) or len([name for name in call.onnx.outputs if name]) > 1:
        return None
    heads = (call.onnx.attribute("q_num_heads"), *[call.onnx.attribute("kv_num_heads")] * 2)
    return _attention(call, [call.dims_of(at) for at in range(3)], heads, call.value(3))


def _attention(call: OnnxCall, given: list[list[Dim]], heads: tuple[int | None, ...], mask: object) -> Given | None:
    parted = len(given[0]) == 3
    if parted and any(n is None for n in heads):
        return None
    query, key, value = (_headed(call, dims, n) if parted and n else dims for dims, n in zip(given, heads, strict=True))
    arguments = {"query": Typed(tuple(query)), "key": Typed(tuple(key)), "value": Typed(tuple(value)), "attn_mask": mask}
    shape = [size(dim) for dim in (*query[:-1], value[-1])]
    out = call.like("scaled_dot_product_attention", shapes=[shape], **arguments)
    assert isinstance(out, list)
    b, h, s, d = (dim for dim in out if not isinstance(dim, (list, Typed)))
    return [b, s, multiply([h, d])] if parted else [b, h, s, d]


def _headed(call: OnnxCall, dims: list[Dim], heads: int) -> list[Dim]:
    """``[B, S, H x D]`` as ``[B, H, S, D]``."""
    head, inside = call.fresh(heads), call.fresh(size(dims[2]) // heads)
    call.unify(dims[2], multiply([head, inside]))
    return [dims[0], head, dims[1], inside]


def multi_head(call: OnnxCall) -> Given | None:
    """onnxruntime's ``MultiHeadAttention`` of three inputs, without biases, masks or caches."""
    if [at for at in range(len(call.onnx.inputs)) if call.onnx.given(at)] != [0, 1, 2] or len(call.dims_of(1)) != 3:
        return None
    return _attention(call, [call.dims_of(at) for at in range(3)], (call.onnx.attribute("num_heads"),) * 3, None)


def rotary(call: OnnxCall) -> Given | None:
    """Rotary positions as one operator: the entries of a head are numbered by its tables."""
    x = call.dims_of(0)
    for at in (1, 2, 3):
        call.freeze(call.dims_of(at), "positions")
    if len(x) == 4:
        call.freeze(x[2:], "positions")
        return x
    heads = call.onnx.attribute("num_heads", 0)
    if not heads:
        return None
    inside = call.fresh(size(x[2]) // heads, "positions")
    call.unify(x[2], multiply([call.fresh(heads), inside]))
    return x


RULES = {
    "Attention": attention,
    "com.microsoft.MultiHeadAttention": multi_head,
    "RotaryEmbedding": rotary,
    "com.microsoft.RotaryEmbedding": rotary,
}
