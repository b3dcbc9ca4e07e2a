"""Scaled dot-product attention, with grouped queries."""

from __future__ import annotations

from secateurs.graph.axes import multiply, size
from secateurs.graph.calls import Call, Dims, broadcast

__all__ = ["RULES"]


def attention(call: Call) -> Dims | list[Dims]:
    """``q [.., H, L, D]``, ``k [.., K, S, D]``, ``v [.., K, S, V]`` give ``[.., H, L, V]``; grouped queries: ``H = K x r``."""
    q, k, v = call.dims("query"), call.dims("key"), call.dims("value")
    call.unify(q[-1], k[-1])
    call.unify(k[-2], v[-2])
    call.freeze([q[-2], k[-2]], "a sequence")
    keys = broadcast([k[:-2], v[:-2]], call.node.name)
    if len(q) > 2 and size(q[-3]) != size(keys[-1]) != 1:
        keys[-1] = multiply([keys[-1], call.fresh(size(q[-3]) // size(keys[-1]))])
    batch = broadcast([q[:-2], keys], call.node.name)
    if call.has("attn_mask"):
        broadcast([[*batch, q[-2], k[-2]], call.dims("attn_mask")], call.node.name)
    for dim in batch:
        call.kind(dim, "heads")
    call.kind(q[-1], "head-dims")
    call.kind(v[-1], "head-dims")
    out = [*batch, q[-2], v[-1]]
    rest = [[call.fresh(n, "statistics of an attention") for n in shape] for shape in call.outputs[1:]]
    return [out, *rest] if rest else out


FLASH = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention")
RULES = dict.fromkeys(("scaled_dot_product_attention", "_scaled_dot_product_flash_attention", *FLASH), attention)
