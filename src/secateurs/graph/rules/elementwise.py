"""Operators that work entry by entry: dimensions are aligned from the right and made the same."""

from __future__ import annotations

from secateurs.graph.axes import size
from secateurs.graph.calls import Call, Dims, Typed, broadcast

__all__ = ["RULES", "elementwise"]

UNARY = """
_conj _to_copy abs acos acosh alias alpha_dropout angle asin asinh atan atanh bitwise_not ceil celu clamp clamp_max clamp_min
clone conj conj_physical contiguous cos cosh deg2rad detach detach_copy digamma dropout elu empty_like erf erfc erfinv exp
exp2 expm1 fake_quantize feature_dropout fill fix floor frac full_like gelu hardshrink hardsigmoid hardswish hardtanh imag
isfinite isinf isnan leaky_relu lgamma lift_fresh lift_fresh_copy log log10 log1p log2 log_sigmoid logical_not logit mish
mvlgamma nan_to_num native_dropout neg negative ones_like positive rad2deg real reciprocal relu relu6 resolve_conj resolve_neg
round rrelu rsqrt selu sgn sigmoid sign silu sin sinc sinh softplus softshrink special_erf special_expit special_expm1
special_log1p sqrt square tan tanh tanhshrink threshold to trunc type_as zero zeros_like
"""
BINARY = """
__and__ __lshift__ __or__ __rshift__ __xor__ add addcdiv addcmul atan2 bitwise_and bitwise_left_shift bitwise_or
bitwise_right_shift bitwise_xor complex copy copysign div divide eq float_power floor_divide fmax fmin fmod ge greater
greater_equal gt heaviside hypot le lerp less less_equal logaddexp logical_and logical_or logical_xor lt masked_fill maximum
minimum mul multiply ne not_equal polar pow remainder rsub sub subtract true_divide where xlogy
"""
SAME = {"alias", "clone", "contiguous", "detach", "detach_copy", "lift_fresh", "lift_fresh_copy", "to", "type_as", "_to_copy"}


def elementwise(call: Call) -> Dims | Typed:
    """All tensors broadcast; a scalar couples nothing."""
    values = call.tensors()
    if call.operator in SAME:
        return values[0]
    _note_affine(call, values)
    return broadcast([value.dims for value in values], call.node.name)


def _note_affine(call: Call, values: list[Typed]) -> None:
    """A parameter that multiplies entry by entry is an affine, one that is added a bias, if it has one axis."""
    word = {"mul": "norm", "mul_": "norm", "div": "norm", "add": "bias", "add_": "bias"}.get(call.operator)
    for value in values if word and len(values) > 1 else []:
        long = [i for i, dim in enumerate(value.dims) if size(dim) > 1]
        if len(long) == 1:
            call.role_of(value, long[0], word or "direct")


def prelu(call: Call) -> Dims:
    """One slope per channel, or one for all."""
    out = call.dims("self")
    weight = call.dims("weight")
    if len(out) > 1 and weight and size(weight[0]) > 1:
        call.unify(out[1], weight[0])
        call.role("weight", 0, "norm")
    return out


RULES = dict.fromkeys((UNARY + BINARY).split(), elementwise) | {"prelu": prelu}
