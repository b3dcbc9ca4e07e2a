"""Operators that lay the same entries out anew: views, permutations, repetitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from secateurs.graph.axes import ONE, Dim, axis, multiply, size
from secateurs.graph.calls import Call, Dims, Typed

__all__ = ["RULES", "regroup"]


def regroup(call: Call, dims: Sequence[Dim], shape: Sequence[int]) -> Dims:
    """``dims`` seen as ``shape``: the smallest runs of equal product are matched, each as product with product."""
    if 0 in shape:
        call.freeze(dims, "an empty tensor")
        return [axis(n, "an empty tensor", call.node.name) for n in shape]
    out: Dims = []
    left, sizes = list(dims), list(shape)
    while left or sizes:
        ours, theirs = _run(left, sizes)
        if len(ours) == len(theirs) == 1:
            out.extend(ours)
            continue
        new = [axis(n) for n in theirs]
        call.unify(multiply(ours), multiply(new))
        out.extend(new)
    return out


def _run(left: Dims, sizes: list[int]) -> tuple[Dims, list[int]]:
    """Take the shortest runs with one product from the front of both."""
    ours: Dims = [left.pop(0)] if left else [ONE]
    theirs = [sizes.pop(0)] if sizes else []
    a, b = size(ours[0]), theirs[0] if theirs else 1
    while a != b:
        if a < b:
            ours.append(left.pop(0))
            a *= size(ours[-1])
        else:
            theirs.append(sizes.pop(0))
            b *= theirs[-1]
    return ours, theirs


def view(call: Call) -> Typed:
    """``view``, ``reshape``, ``flatten``, ``unflatten`` and their kin."""
    dims = call.dims("self")
    return call.derived(regroup(call, dims, call.shape), _sources([size(dim) for dim in dims], call.shape))


def _sources(before: Sequence[int], after: Sequence[int]) -> list[int | None]:
    """For each size of ``after`` the one dimension of ``before`` it is taken from, if it is one alone."""
    spans = [(math.prod(before[:i]), math.prod(before[: i + 1]), i) for i in range(len(before)) if before[i] > 1]
    found: list[int | None] = []
    for i in range(len(after)):
        outer, inner = math.prod(after[:i]), math.prod(after[: i + 1])
        found.append(next((k for a, b, k in spans if a <= outer < inner <= b), None))
    return found


def _reordered(call: Call, order: Sequence[int | None]) -> Typed:
    """Dimension ``i`` of the result is ``order[i]`` of the input, ``None`` a new one of size 1."""
    dims = call.dims("self")
    return call.derived([ONE if i is None else dims[i] for i in order], order)


def permute(call: Call) -> Typed:
    """Reorder."""
    rank = len(call.dims("self"))
    return _reordered(call, [i % rank for i in call["dims"]])


def transpose(call: Call) -> Typed:
    """Exchange two dimensions (the last two where none are named)."""
    rank = len(call.dims("self"))
    order: list[int | None] = list(range(rank))
    if rank > 1:
        named = (call["dim0"], call["dim1"]) if call["dim0"] is not None else (-2, -1)
        i, j = (d % rank for d in named)
        order[i], order[j] = j, i
    return _reordered(call, order)


def movedim(call: Call) -> Typed:
    """Move some dimensions, the others keep their order."""
    rank = len(call.dims("self"))
    sources, targets = ([call[name]] if isinstance(call[name], int) else call[name] for name in ("source", "destination"))
    moved = {t % rank: s % rank for s, t in zip(sources, targets, strict=True)}
    others = iter(i for i in range(rank) if i not in moved.values())
    return _reordered(call, [moved[i] if i in moved else next(others) for i in range(rank)])


def unsqueeze(call: Call) -> Typed:
    """Insert a dimension of size 1."""
    rank = len(call.dims("self"))
    order: list[int | None] = list(range(rank))
    order.insert(call["dim"] % (rank + 1), None)
    return _reordered(call, order)


def squeeze(call: Call) -> Typed:
    """Drop dimensions of size 1: the named ones, or all."""
    dims = call.dims("self")
    named = call["dim"] if call["dim"] is not None else range(len(dims))
    gone = {d % len(dims) for d in ([named] if isinstance(named, int) else named) if dims} if dims else set()
    return _reordered(call, [i for i, dim in enumerate(dims) if i not in gone or size(dim) != 1])


def expand(call: Call) -> Dims:
    """A dimension of size 1 becomes a new axis, the others stay."""
    dims, shape = call.dims("self"), call.shape
    padded = [ONE] * (len(shape) - len(dims)) + dims
    return [dim if size(dim) == n else call.fresh(n) for dim, n in zip(padded, shape, strict=True)]


def repeat(call: Call) -> Dims:
    """``repeat`` and ``tile``: the whole dimension ``r`` times is ``r x C``."""
    dims, shape = call.dims("self"), call.shape
    padded = [ONE] * (len(shape) - len(dims)) + dims
    return [multiply([call.fresh(n // size(dim)), dim]) for dim, n in zip(padded, shape, strict=True)]


def repeat_interleave(call: Call) -> Dims:
    """Every entry ``r`` times is ``C x r``."""
    dims = call.dims("self")
    if not dims or call["repeats"] is None or not isinstance(call["repeats"], int):
        call.freeze(dims, "repeated by a computed count")
        return [call.fresh(n, "repeated by a computed count") for n in call.shape]
    if call["dim"] is None:
        dims = regroup(call, dims, [size(multiply(dims))])
    at = (call["dim"] or 0) % len(dims)
    return [multiply([dim, call.fresh(call["repeats"])]) if i == at else dim for i, dim in enumerate(dims)]


def view_as_complex(call: Call) -> Dims:
    """Pairs along the last dimension become numbers: what was a dimension of two is none any more."""
    dims = call.dims("self")
    call.freeze(dims[-1:], "real and imaginary parts")
    return dims[:-1]


def view_as_real(call: Call) -> Dims:
    """Numbers become pairs."""
    return [*call.dims("self"), call.fresh(2, "real and imaginary parts")]


RULES = {
    "view_as_complex": view_as_complex,
    "view_as_real": view_as_real,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "ravel", "view_as", "reshape_as"), view),
    **dict.fromkeys(("view_copy", "_reshape_alias", "_reshape_copy"), view),
    "permute": permute,
    "permute_copy": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT", "adjoint", "transpose_copy"), transpose),
    **dict.fromkeys(("movedim", "moveaxis"), movedim),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to", "expand_copy"), expand),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
}
