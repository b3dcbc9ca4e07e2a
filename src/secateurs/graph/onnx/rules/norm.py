"""Normalisation."""

from __future__ import annotations

from secateurs.graph.calls import Typed
from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given

__all__ = ["RULES"]


def batch_norm(call: OnnxCall) -> Given | None:
    """Scale, bias, mean and variance per channel; in the training form everything is frozen."""
    if call.onnx.attribute("training_mode", 0) or len([name for name in call.onnx.outputs if name]) > 1:
        return None
    weight, bias, mean, variance = (call.value(i) for i in range(1, 5))
    return call.like("batch_norm", input=call.value(0), weight=weight, bias=bias, running_mean=mean, running_var=variance)


def instance_norm(call: OnnxCall) -> Given:
    """Scale and bias per channel, statistics over everything else."""
    return call.like("instance_norm", input=call.value(0), weight=call.value(1), bias=call.value(2))


def layer_norm(call: OnnxCall) -> Given:
    """``LayerNormalization`` and the RMS norms: from ``axis`` on."""
    rank = len(call.dims_of(0))
    axis = call.onnx.attribute("axis", -1) % rank
    bias = call.value(2) if call.onnx.operator == "LayerNormalization" else None
    trailing = call.onnx.shape(0)[axis:]
    return call.like("layer_norm", input=call.value(0), weight=call.value(1), bias=bias, normalized_shape=trailing)


def skip_norm(call: OnnxCall) -> Given:
    """``SkipSimplifiedLayerNormalization``: the RMS norm of a sum of two inputs (and a bias), given with the sum itself."""
    added = [call.value(0), call.value(1), *([call.value(3)] if call.onnx.given(3) else [])]
    total = call.like("where", tensors=added)
    assert isinstance(total, list)
    whole = Typed(tuple(dim for dim in total if not isinstance(dim, (list, Typed))))
    call.like("layer_norm", input=whole, weight=call.value(2), normalized_shape=call.shape[-1:], shapes=[call.shape])
    statistics = [Typed(tuple(call.fresh(n, "statistics of a norm") for n in shape)) for shape in call.outputs[1:-1]]
    return [whole, *statistics, whole][: len(call.outputs)]


def group_norm(call: OnnxCall) -> Given | None:
    """Scale and bias per channel; the form with one of each per group was withdrawn."""
    if call.onnx.shape(1) != call.onnx.shape(0)[1:2]:
        return None
    groups = call.onnx.attribute("num_groups")
    return call.like("group_norm", input=call.value(0), weight=call.value(1), bias=call.value(2), num_groups=groups)


RULES = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), layer_norm),
    "com.microsoft.SkipSimplifiedLayerNormalization": skip_norm,
    "GroupNormalization": group_norm,
}
