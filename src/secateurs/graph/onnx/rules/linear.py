"""Products: ``Gemm``, ``MatMul`` with its weight ``[I, O]``, ``Einsum``, convolutions."""

from __future__ import annotations

from secateurs.graph.axes import Dim
from secateurs.graph.calls import Typed, broadcast
from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given

__all__ = ["RULES"]


def matmul(call: OnnxCall) -> Given:
    """Either operand may be a weight."""
    return call.like("matmul", self=call.value(0), other=call.value(1))


def gemm(call: OnnxCall) -> Given:
    """``alpha A' B' + beta C``, where a prime may be a transposition: the weight is ``B``, and ``C`` broadcasts."""
    x = call.turned(0, [1, 0]) if call.onnx.attribute("transA", 0) else call.value(0)
    weight = call.value(1) if call.onnx.attribute("transB", 0) else call.turned(1, [1, 0])
    call.dims_of(0), call.dims_of(1)  # so that the weight comes before the bias
    added = call.dims_of(2)
    bias = call.value(2) if len(added) == 1 and call.onnx.shape(2) == call.shape[1:] else None
    out = call.like("linear", input=x, weight=weight, bias=bias)
    assert isinstance(out, list)
    if added and bias is None:
        dims: list[Dim] = [d for d in out if not isinstance(d, (list, Typed))]
        return broadcast([dims, added], call.onnx.name)
    return out


def einsum(call: OnnxCall) -> Given:
    """The equation is PyTorch's."""
    tensors = [call.value(i) for i in range(len(call.onnx.inputs))]
    return call.like("einsum", equation=call.onnx.attribute("equation"), tensors=tensors)


def conv(call: OnnxCall) -> Given:
    """Plain, grouped, depthwise; transposed ones have the roles of the weight's first two dimensions swapped."""
    name = "conv_transpose2d" if call.onnx.operator == "ConvTranspose" else "conv2d"
    weight, groups = call.value(1), call.onnx.attribute("group", 1)
    return call.like(name, input=call.value(0), weight=weight, bias=call.value(2), groups=groups, transposed=False)


RULES = {"MatMul": matmul, "Gemm": gemm, "Einsum": einsum, "Conv": conv, "ConvTranspose": conv}
