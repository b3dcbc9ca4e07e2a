"""``LSTM``, ``GRU``, ``RNN``: ``W [dirs, g H, I]``, ``R [dirs, g H, H]``, ``B [dirs, 2 g H]``; gates are outermost."""

from __future__ import annotations

from secateurs.graph.axes import Dim, multiply
from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.rules import Given

__all__ = ["GATES", "RULES"]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(call: OnnxCall) -> Given | None:
    """One layer. Both directions lie in one tensor, so they lose the same indices.

    ``x [T, N, I]`` gives ``Y [T, dirs, N, H]`` and the last states ``[dirs, N, H]``.
    """
    gates, width = GATES[call.onnx.operator], call.onnx.attribute("hidden_size")
    if call.onnx.attribute("layout", 0) or width is None:
        return None
    x, hidden = call.dims_of(0), call.fresh(width)
    call.kind(hidden, "hidden")
    call.freeze(x[:2], "a sequence")
    _weights(call, gates, hidden, x[2])
    states = [call.dims_of(at) for at in (5, 6) if call.onnx.given(at)]
    for state in states:
        call.freeze(state[:2], "a sequence")
        call.unify(state[2], hidden)
    if call.onnx.given(7):  # peepholes
        call.unify(call.dims_of(7)[1], multiply([call.fresh(3, "gates"), hidden]))
        call.role_of(call.typed(call.value(7)), 1, "norm")
    directions = call.fresh(call.onnx.shape(1)[0], "directions")
    rows = {4: [x[0], directions, x[1], hidden], 3: [directions, x[1], hidden]}
    return [list(rows[len(shape)]) for shape in call.outputs]


def _weights(call: OnnxCall, gates: int, hidden: Dim, given: Dim) -> None:
    for at, inner in ((1, given), (2, hidden)):
        weight = call.dims_of(at)
        call.freeze(weight[:1], "directions")
        call.unify(weight[1], multiply([call.fresh(gates, "gates"), hidden]))
        call.unify(weight[2], inner)
        call.role_of(call.typed(call.value(at)), 1, "out")
        call.role_of(call.typed(call.value(at)), 2, "in")
    if call.onnx.given(3):
        bias = call.dims_of(3)
        call.freeze(bias[:1], "directions")
        call.unify(bias[1], multiply([call.fresh(2, "gates"), call.fresh(gates, "gates"), hidden]))
        call.role_of(call.typed(call.value(3)), 1, "bias")


RULES = dict.fromkeys(GATES, recurrent)
