"""Operators that take parts of tensors or put them together: a dimension is cut where they cut it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import fx

from secateurs.graph.axes import ONE, Dim, add, multiply, resolve, size
from secateurs.graph.calls import UNKNOWN_SIZE, Call, Dims, Typed, broadcast, number_of
from secateurs.graph.unify import Conflict, cut

__all__ = ["RULES"]

COMPUTED = "indexed by computed positions"


def pieces(call: Call, dim: Dim, at: Sequence[int]) -> Dims:
    """``dim`` cut at the sorted positions ``at``; frozen, with new frozen pieces, where a cut is impossible."""
    bounds = [0, *at, size(dim)]
    out: Dims = []
    try:
        for start, end in pairwise(bounds):
            left = resolve(dim)
            if start == end:
                out.append(call.fresh(0, "an empty tensor"))
            elif end - start == size(left):
                out.append(left)
            else:
                piece, dim = cut(left, end - start)
                out.append(piece)
        return out
    except Conflict:
        reason = f"cut at {', '.join(str(n) for n in at)}, inside its parts"
        call.freeze([dim, *out], reason)
        return [call.fresh(end - start, reason) for start, end in pairwise(bounds)]


def _replaced(dims: Dims, at: int, dim: Dim) -> Dims:
    return [dim if i == at else other for i, other in enumerate(dims)]


def slice_(call: Call) -> Typed:
    """``start:end:step``: with a step ``s`` the axis is ``n/s x s``."""
    return call.derived(_sliced(call), range(len(call.dims("self"))))


def _sliced(call: Call) -> Dims:
    dims = call.dims("self")
    at = (call["dim"] or 0) % len(dims)
    n = size(dims[at])
    start, end, step = slice(_int(call["start"]), _int(call["end"]), _int(call["step"])).indices(n)
    if step == 1:
        bounds = pieces(call, dims[at], [start, max(end, start)])
        return _replaced(dims, at, bounds[1])
    if n % step or end + step <= n:
        return _replaced(dims, at, _frozen_part(call, dims[at], call.shape[at]))
    outer, inner = call.fresh(n // step), call.fresh(step)
    call.unify(dims[at], multiply([outer, inner]))
    pieces(call, inner, [start, start + 1])
    return _replaced(dims, at, outer)


def _int(value: object) -> int | None:
    """A bound as a number; one that is computed is taken at its example's value."""
    if isinstance(value, fx.Node):
        value = value.meta.get("val")
    return number_of(value) if isinstance(value, (int, torch.SymInt)) else None


def _frozen_part(call: Call, dim: Dim, n: int) -> Dim:
    call.freeze([dim], COMPUTED)
    return call.fresh(n, COMPUTED)


def narrow(call: Call) -> Typed:
    """``length`` entries from ``start`` on."""
    dims = call.dims("self")
    at = call["dim"] % len(dims)
    if isinstance(call["start"], int):
        start = call["start"] % size(dims[at])
        part = pieces(call, dims[at], [start, start + call["length"]])[1]
    else:
        part = _frozen_part(call, dims[at], call.shape[at])
    return call.derived(_replaced(dims, at, part), range(len(dims)))


def select(call: Call) -> Typed:
    """One index: it can no longer go."""
    dims = call.dims("self")
    at = call["dim"] % len(dims)
    if isinstance(call["index"], int):
        index = call["index"] % size(dims[at])
        pieces(call, dims[at], [index, index + 1])
    else:
        call.freeze([dims[at]], COMPUTED)
    return _without(call, dims, at)


def _without(call: Call, dims: Dims, at: int) -> Typed:
    order = [i for i in range(len(dims)) if i != at]
    return call.derived([dims[i] for i in order], order)


def unbind(call: Call) -> list[Typed]:
    """Every index by itself."""
    dims = call.dims("self")
    at = (call["dim"] or 0) % len(dims)
    pieces(call, dims[at], range(1, size(dims[at])))
    return [_without(call, dims, at) for _ in call.outputs]


def split(call: Call) -> list[Typed]:
    """``split``, ``chunk``, ``split_with_sizes``, ``tensor_split``: the sizes are those of the results."""
    dims = call.dims("self")
    at = (call["dim"] or 0) % len(dims)
    sizes = [shape[at] for shape in call.outputs]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    if ends.pop() != size(dims[at]):
        call.freeze([dims[at]], COMPUTED)
        return [call.derived(_replaced(dims, at, call.fresh(n, COMPUTED)), range(len(dims))) for n in sizes]
    return [call.derived(_replaced(dims, at, piece), range(len(dims))) for piece in pieces(call, dims[at], ends)]


def glu(call: Call) -> Dims:
    """The first half times the sigmoid of the second."""
    dims = call.dims("self")
    at = (-1 if call["dim"] is None else call["dim"]) % len(dims)
    first, second = pieces(call, dims[at], [size(dims[at]) // 2])
    call.unify(first, second)
    return _replaced(dims, at, first)


def cat(call: Call) -> Dims:
    """The concatenated dimension is the sum of the inputs', the others are the same."""
    inputs = [dims for dims in call.listed("tensors") if [size(dim) for dim in dims] != [0]] or call.listed("tensors")[:1]
    at = (call["dim"] or 0) % len(inputs[0])
    for dims in inputs[1:]:
        broadcast([dims[:at], inputs[0][:at]], call.node.name)
        broadcast([dims[at + 1 :], inputs[0][at + 1 :]], call.node.name)
    return _replaced(inputs[0], at, add(dims[at] for dims in inputs))


def stack(call: Call) -> Dims:
    """A new dimension of pinned positions: each input is one of them."""
    inputs = call.listed("tensors")
    out = broadcast(inputs, call.node.name)
    at = (call["dim"] or 0) % (len(out) + 1)
    out.insert(at, call.fresh(len(inputs), "stacked tensors"))
    return out


def index(call: Call) -> Typed:
    """Advanced indexing: indexed dimensions are frozen, the others pass."""
    dims, out = call.dims("self"), _indexed(call, call.dims("self"), call["indices"])
    order = [next((i for i, own in enumerate(dims) if own is dim and size(dim) > 1), None) for dim in out]
    return call.derived(out, order)


def _indexed(call: Call, dims: Dims, indices: Sequence[fx.Node | None]) -> Dims:
    """The dimensions of ``x[indices]``: those of the index tensors stand where they were if they are neighbours, else first."""
    masks = [i for i, node in enumerate(indices) if node is not None and _boolean(node)]
    if masks:
        return _masked(call, dims, indices, masks)
    types = [call.typed(i) for i in indices]
    at = [i for i, kind in enumerate(types) if kind is not None]
    call.freeze([dims[i] for i in at], COMPUTED)
    chosen = broadcast([kind.dims for kind in types if kind], call.node.name)
    call.freeze(chosen, COMPUTED)
    rest = [dim for i, dim in enumerate(dims) if i not in at]
    first = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    return [*rest[:first], *chosen, *rest[first:]]


def _masked(call: Call, dims: Dims, indices: Sequence[fx.Node | None], masks: list[int]) -> Dims:
    """One mask of ``r`` dimensions turns those into one, as long as it has hits; with further indices everything is frozen."""
    mask = call.typed(indices[masks[0]])
    if mask is None or sum(node is not None for node in indices) > 1:
        call.freeze([*dims, *[d for node in indices if (kind := call.typed(node)) for d in kind.dims]], COMPUTED)
        return [call.fresh(n, COMPUTED) for n in call.shape]
    first, rank = masks[0], len(mask.dims)
    call.freeze([*mask.dims, *dims[first : first + rank]], COMPUTED)
    hits = call.shape[first] if call.operator == "index" else UNKNOWN_SIZE
    return [*dims[:first], call.fresh(hits, COMPUTED), *dims[first + rank :]]


def _boolean(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bool, torch.uint8)


def index_put(call: Call) -> Dims:
    """``x[indices] = values``: the values look like what indexing would give."""
    dims = call.dims("self")
    broadcast([_indexed(call, dims, call["indices"]), call.dims("values")], call.node.name)
    return dims


def index_select(call: Call) -> Dims:
    """Rows by number; also differences of neighbours, which leave another length."""
    dims = call.dims("self")
    at = call["dim"] % len(dims)
    return _replaced(dims, at, _frozen_part(call, dims[at], call.shape[at]))


def gather(call: Call) -> Dims:
    """``gather``, ``take_along_dim``: along ``dim`` by number, elsewhere the index runs beside the input."""
    dims, index_dims = call.dims("self"), call.dims("index" if call.has("index") else "indices")
    at = (call["dim"] or 0) % len(dims)
    call.freeze([dims[at], index_dims[at]], COMPUTED)
    for i, (a, b) in enumerate(zip(dims, index_dims, strict=True)):
        if i != at and size(a) == size(b):
            call.unify(a, b)
        elif i != at:
            call.freeze([a, b], COMPUTED)
    return index_dims


def scatter(call: Call) -> Dims:
    """``scatter``, ``index_add``, ``index_copy``: the input's shape; along ``dim`` by number."""
    dims = call.dims("self")
    at = call["dim"] % len(dims)
    for name in ("index", "src", "source"):
        other = call.dims(name)
        for i, dim in enumerate(other):
            if len(other) == len(dims) and i != at and size(dim) == size(dims[i]):
                call.unify(dim, dims[i])
            else:
                call.freeze([dim, *dims[i : i + 1]] if len(other) == len(dims) else [dim], COMPUTED)
    call.freeze([dims[at]], COMPUTED)
    return dims


def pad(call: Call) -> Dims:
    """Zeros before and after: on a channel dimension they are virtual channels that follow their partner."""
    dims = list(call.dims("self"))
    amounts, mode = call["pad"], call["mode"] or "constant"
    for i in range(len(amounts) // 2):
        before, after = amounts[2 * i], amounts[2 * i + 1]
        at = len(dims) - 1 - i
        if not before and not after:
            continue
        if mode != "constant" or before < 0 or after < 0:
            dims[at] = _frozen_part(call, dims[at], call.shape[at])
        else:
            dims[at] = add([*[call.fresh(n) for n in (before,) if n], dims[at], *[call.fresh(n) for n in (after,) if n]])
    return dims


def same(call: Call) -> Dims:
    """``roll``, ``flip``: entries change places, so those dimensions are frozen."""
    dims = call.dims("self")
    moved = call["dims"] or range(len(dims))
    along = [dims[d % len(dims)] for d in moved]
    call.freeze(along, "its entries change places")
    call.mixes(along, dims)
    return dims


def slice_scatter(call: Call) -> Dims:
    """``x`` with a slice replaced."""
    dims = call.dims("self")
    at = (call["dim"] or 0) % len(dims)
    call.freeze([dims[at], call.dims("src")[at]], COMPUTED)
    broadcast([_replaced(dims, at, ONE), _replaced(call.dims("src"), at, ONE)], call.node.name)
    return dims


RULES = {
    "slice": slice_,
    "narrow": narrow,
    "select": select,
    "unbind": unbind,
    **dict.fromkeys(("split", "chunk", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk"), split),
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "glu": glu,
    "stack": stack,
    "index": index,
    **dict.fromkeys(("index_put", "_unsafe_index_put", "_index_put_impl"), index_put),
    "_unsafe_index": index,
    "index_select": index_select,
    **dict.fromkeys(("gather", "take_along_dim"), gather),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill"), scatter),
    "diff": index_select,
    "slice_scatter": slice_scatter,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("roll", "flip", "fliplr", "flipud"), same),
}
