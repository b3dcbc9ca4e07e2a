"""Operators that look at a whole dimension at once: sums and statistics let it vanish, orderings and softmax freeze it."""

from __future__ import annotations

from secateurs.graph.axes import ONE, size
from secateurs.graph.calls import Call, Dims, broadcast

__all__ = ["RULES"]

ORDER = "its entries are compared with one another"


def _reduced(call: Call) -> list[int]:
    """The dimensions an operator reduces: the named ones, or all."""
    rank = len(call.dims("self" if call.has("self") else "input"))
    named = call["dim"] if call["dim"] is not None else call["dims"]
    if named is None or named == []:
        return list(range(rank))
    return [d % rank for d in ([named] if isinstance(named, int) else named)] if rank else []


def _without(call: Call, gone: list[int]) -> Dims | list[Dims]:
    """The type of every result once ``gone`` has vanished, or has size 1."""
    dims = call.dims("self" if call.has("self") else "input")
    keepdim = len(call.outputs[0]) == len(dims)
    out = [ONE if i in gone else dim for i, dim in enumerate(dims) if keepdim or i not in gone]
    return out if len(call.outputs) == 1 else [list(out) for _ in call.outputs]


def total(call: Call) -> Dims | list[Dims]:
    """A sum or a norm: zero entries add nothing, so removal is masking."""
    return _without(call, _reduced(call))


def statistic(call: Call) -> Dims | list[Dims]:
    """A mean or a variance: zero entries count too, so removal is not masking."""
    gone = _reduced(call)
    dims = call.dims("self" if call.has("self") else "input")
    call.spans([dims[i] for i in gone])
    call.mixes([dims[i] for i in gone], dims)
    return _without(call, gone)


def extreme(call: Call) -> Dims | list[Dims]:
    """A maximum, a product, an index: a removed entry might have been the one."""
    gone = _reduced(call)
    dims = call.dims("self" if call.has("self") else "input")
    call.freeze([dims[i] for i in gone], ORDER)
    return _without(call, gone)


def maximum(call: Call) -> Dims | list[Dims]:
    """``max`` and ``min``: of one tensor; of two they are element-wise."""
    return broadcast([call.dims("self"), call.dims("other")], call.node.name) if call.has("other") else extreme(call)


def along(call: Call) -> Dims:
    """Softmax and cumulative operators: every entry changes every other one, so the dimension is frozen."""
    dims = call.dims("self" if call.has("self") else "input")
    if dims:
        at = call["dim"] % len(dims)
        call.freeze(dims[at : at + 1], f"{call.operator} over it: removing one entry changes the others")
        call.mixes(dims[at : at + 1], dims)
    return dims


def sorting(call: Call) -> Dims | list[Dims]:
    """``topk``, ``sort``, ``cummax``, ``kthvalue``: values and indices along a frozen dimension."""
    dims = call.dims("self")
    at = (-1 if call["dim"] is None else call["dim"]) % len(dims) if dims else 0
    call.freeze(dims[at : at + 1], ORDER)
    call.mixes(dims[at : at + 1], dims)
    out = [dim if size(dim) == n else call.fresh(n, ORDER) for dim, n in zip(dims, call.shape, strict=False)]
    if call.operator == "argsort":
        return out
    return [list(out) for _ in call.outputs]


RULES = {
    **dict.fromkeys(("sum", "nansum", "norm", "linalg_vector_norm"), total),
    **dict.fromkeys(("mean", "nanmean", "var", "std", "var_mean", "std_mean"), statistic),
    **dict.fromkeys(("amax", "amin", "argmax", "argmin", "prod", "any", "all", "logsumexp", "median", "mode"), extreme),
    **dict.fromkeys(("max", "min"), maximum),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp"), along),
    **dict.fromkeys(("topk", "sort", "argsort", "cummax", "cummin"), sorting),
}
