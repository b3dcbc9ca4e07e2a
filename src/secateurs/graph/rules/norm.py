"""Normalisation: statistics over an axis do not couple its indices, but make removal differ from masking; that is noted."""

from __future__ import annotations

from secateurs.graph.axes import multiply, size
from secateurs.graph.calls import Call, Dims

__all__ = ["RULES"]

AFFINE = (("weight", "norm"), ("bias", "norm"), ("running_mean", "buffer"), ("running_var", "buffer"))


def _affine(call: Call, dims: Dims) -> None:
    """The affine and the running statistics carry ``dims``."""
    for name, role in AFFINE:
        for i, (own, dim) in enumerate(zip(call.dims(name), dims, strict=False)):
            call.unify(own, dim)
            call.role(name, i, role)


def batch_norm(call: Call) -> Dims | list[Dims]:
    """Batch and instance norm: statistics per channel, over everything else unless they are the running ones."""
    x = call.dims("input")
    _affine(call, x[1:2])
    if not call.has("running_mean") or call["training"] or call["use_input_stats"]:
        call.freeze([*x[:1], *x[2:]], "a norm's statistics run over it")
    return _with_statistics(call, x)


def layer_norm(call: Call) -> Dims | list[Dims]:
    """Layer and RMS norm: statistics over the trailing dimensions."""
    x = call.dims("input")
    trailing = x[len(x) - len(call["normalized_shape"]) :]
    _affine(call, trailing)
    call.spans(trailing)
    call.mixes(trailing, x)
    for dim in trailing:
        call.kind(dim, "width")
    return _with_statistics(call, x)


def group_norm(call: Call) -> Dims | list[Dims]:
    """``G x c`` channels: statistics over the ``c`` of each group, so a whole group may leave without a trace."""
    x = call.dims("input")
    groups = call["num_groups"] or call["group"]
    inside = call.fresh(size(x[1]) // groups)
    call.unify(x[1], multiply([call.fresh(groups), inside]))
    _affine(call, x[1:2])
    call.freeze(x[2:], "a norm's statistics run over it")
    call.spans([inside])
    call.mixes([inside], x)
    return _with_statistics(call, x)


def _with_statistics(call: Call, out: Dims) -> Dims | list[Dims]:
    """The forms that also return mean and deviation give them as further outputs."""
    if len(call.outputs) == 1:
        return out
    return [out, *[[call.fresh(n, "statistics of a norm") for n in shape] for shape in call.outputs[1:]]]


RULES = {
    **dict.fromkeys(("batch_norm", "instance_norm", "native_batch_norm", "cudnn_batch_norm"), batch_norm),
    **dict.fromkeys(("_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_no_update"), batch_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), layer_norm),
    **dict.fromkeys(("group_norm", "native_group_norm"), group_norm),
}
