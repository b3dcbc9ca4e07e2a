"""Operators that work entry by entry."""

from __future__ import annotations

from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given

__all__ = ["RULES"]

UNARY = """
Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish
IsInf IsNaN LeakyRelu Log LpNormalization Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
Softsign Sqrt Swish Tan Tanh ThresholdedRelu com.microsoft.FastGelu com.microsoft.Gelu com.microsoft.QuickGelu
"""
NAMES = {"Mul": "mul", "PRelu": "mul", "Div": "div", "Add": "add", "com.microsoft.BiasGelu": "add"}
BINARY = """
And BitShift BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Or Pow Sub Sum
Where Xor
"""


def unary(call: OnnxCall) -> Given:
    """The first input's dimensions; further ones are numbers (bounds, a share)."""
    return call.like("relu", self=call.value(0))


def same(call: OnnxCall) -> Given:
    """The very input: a weight stays a weight."""
    return call.like("alias", self=call.value(0))


def biased(call: OnnxCall) -> Given:
    """An activation of a sum with a bias that may be absent."""
    return call.like("add", self=call.value(0), other=call.value(1))


def binary(call: OnnxCall) -> Given:
    """All inputs broadcast; factors and terms that are weights are noted as such."""
    inputs = [call.value(i) for i in range(len(call.onnx.inputs))]
    return call.like(NAMES.get(call.onnx.operator, "where"), tensors=inputs)


RULES = {
    **dict.fromkeys(UNARY.split(), unary),
    **dict.fromkeys(("Identity", "Cast", "CastLike"), same),
    **dict.fromkeys((*NAMES, *BINARY.split()), binary),
    **dict.fromkeys(("com.microsoft.BiasGelu", "com.microsoft.FastGelu"), biased),
}
