"""LSTM, GRU and plain recurrent layers: one hidden axis per layer and direction, all of one count."""

from __future__ import annotations

import operator

from secateurs.graph.axes import Dim, add, multiply, size
from secateurs.graph.calls import Call, Dims, Typed

__all__ = ["RULES"]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(call: Call) -> list[Dims]:
    """``x [T, N, I]`` or batch first; weights per layer and direction ``[g x H, I], [g x H, H]``, biases, ``W_hr [P, H]``."""
    x = call.dims("input")
    call.freeze(x[:-1], "a sequence")
    directions = 2 if call["bidirectional"] else 1
    states = call.listed("hx") if isinstance(call["hx"], (list, tuple)) else [call.dims("hx")]
    weights = [call.typed(value) for value in call["params"]]
    per = len(weights) // (call["num_layers"] * directions)
    cells = [tuple(weights[i : i + per]) for i in range(0, len(weights), per)]
    below: Dim = x[-1]
    hidden: list[Dim] = []
    outputs: list[Dim] = []
    for layer in range(call["num_layers"]):
        given = [_cell(call, cell, below) for cell in cells[layer * directions : (layer + 1) * directions]]
        hidden += [h for h, _ in given]
        outputs += [out for _, out in given]
        below = add(out for _, out in given)
    call.notes.ties.append(tuple(hidden))
    for i, (state, carried) in enumerate(zip(states, (outputs, hidden), strict=False)):
        _share(call, state, carried, i)
    return [[*x[:-1], below], *[[*state[:-1], carried[0]] for state, carried in zip(states, (outputs, hidden), strict=False)]]


def _cell(call: Call, weights: tuple[Typed | None, ...], below: Dim) -> tuple[Dim, Dim]:
    """One layer in one direction: its hidden axis, and what it gives (smaller with a projection)."""
    matrices = [w for w in weights if w and len(w.dims) == 2]
    inward, recurrent_, *projection = matrices
    gates = GATES[call.operator]
    hidden = call.fresh(size(inward.dims[0]) // gates)
    call.kind(hidden, "hidden")
    out = projection[0].dims[0] if projection else hidden
    for weight in weights:
        if weight and weight not in projection:
            call.unify(weight.dims[0], multiply([call.fresh(gates, "gates"), hidden]))
            call.role_of(weight, 0, "out" if len(weight.dims) == 2 else "bias")
    call.unify(inward.dims[1], below)
    call.unify(recurrent_.dims[1], out)
    for weight in matrices:
        call.role_of(weight, 1, "in")
    for weight in projection:
        call.unify(weight.dims[1], hidden)
        call.role_of(weight, 0, "out")
    return hidden, out


def _share(call: Call, state: Dims, carried: list[Dim], which: int) -> None:
    """One tensor holds the states of all layers and directions: where it is read or given, their very indices are one.

    An initial state of zeros gives no index a meaning; it has the size they all have.
    """
    given = call["hx"][which] if isinstance(call["hx"], (list, tuple)) else call["hx"]
    zeros = getattr(given.target, "_schema", None) is not None and "zeros" in given.target._schema.name
    read = any(user.args[1] == which + 1 and user.users for user in call.node.users if user.target is operator.getitem)
    call.unify(state[-1], carried[0])
    for dim in carried[1:] if read or not zeros else []:
        call.unify(dim, carried[0])


RULES = dict.fromkeys(GATES, recurrent)
