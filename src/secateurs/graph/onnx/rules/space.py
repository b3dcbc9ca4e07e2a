"""Operators over space: pooling, resizing, blocks of pixels."""

from __future__ import annotations

from secateurs.graph.axes import multiply
from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given
from secateurs.graph.rules.conv import SPATIAL

__all__ = ["RULES"]


def pool(call: OnnxCall) -> Given | None:
    """Channels pass, whatever happens behind them."""
    rank = len(call.dims_of(0)) - 2
    if rank not in (1, 2, 3) or call.shape[:2] != call.onnx.shape(0)[:2]:
        return None
    return call.like(f"avg_pool{rank}d", self=call.value(0))


def to_space(call: OnnxCall) -> Given:
    """``DepthToSpace``: channels are ``C x r x r`` (CRD, as a pixel shuffle) or ``r x r x C`` (DCR, the default)."""
    r, x = call.onnx.attribute("blocksize"), call.dims_of(0)
    if call.onnx.attribute("mode", "DCR") == "CRD":
        return call.like("pixel_shuffle", self=call.value(0), upscale_factor=r)
    channels = call.fresh(call.shape[1])
    call.unify(x[1], multiply([call.fresh(r, SPATIAL), call.fresh(r, SPATIAL), channels]))
    call.freeze(x[2:], SPATIAL)
    return [x[0], channels, *[call.fresh(n, SPATIAL) for n in call.shape[2:]]]


def to_depth(call: OnnxCall) -> Given:
    """``SpaceToDepth``: ``r x r x C``."""
    r, x = call.onnx.attribute("blocksize"), call.dims_of(0)
    call.freeze(x[2:], SPATIAL)
    channels = multiply([call.fresh(r, SPATIAL), call.fresh(r, SPATIAL), x[1]])
    return [x[0], channels, *[call.fresh(n, SPATIAL) for n in call.shape[2:]]]


def sampled(call: OnnxCall) -> Given:
    """``GridSample``: the places are those of the grid."""
    return call.like("grid_sampler", input=call.value(0), grid=call.value(1))


POOLS = """
AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool Resize Upsample
"""
RULES = {
    **dict.fromkeys(POOLS.split(), pool),
    "DepthToSpace": to_space,
    "SpaceToDepth": to_depth,
    "GridSample": sampled,
}
