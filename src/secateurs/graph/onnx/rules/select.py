"""Operators that take parts of tensors or put them together."""

from __future__ import annotations

from secateurs.graph.axes import Dim, size
from secateurs.graph.calls import Typed
from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.onnx.file import Node
from secateurs.graph.rules import Given

__all__ = ["RULES", "slices_of"]

COMPUTED = "indexed by computed positions"


def concat(call: OnnxCall) -> Given:
    """One after the other."""
    tensors = [call.value(i) for i in range(len(call.onnx.inputs))]
    return call.like("cat", tensors=tensors, dim=call.onnx.attribute("axis"))


def split(call: OnnxCall) -> Given:
    """Sizes are those of the outputs, whichever way a version states them."""
    dim = call.onnx.attribute("axis", 0)
    return call.like("split", self=call.value(0), dim=dim)


def slices_of(node: Node) -> list[tuple[int, int, int, int]] | None:
    """(axis, start, end, step) of a ``Slice``; attributes before version 10, inputs since; ``None`` for computed steps."""
    starts, ends = node.numbers("starts", 1), node.numbers("ends", 2)
    axes, steps = node.numbers("axes", 3), node.numbers("steps", 4)
    if starts is None or ends is None or node.moves(4) or (axes is None and node.given(3)):
        return None
    rank = len(node.shape(0))
    found = [axis % rank for axis in axes] if axes is not None else list(range(len(starts)))
    return list(zip(found, starts, ends, steps or [1] * len(starts), strict=True))


def slice_(call: OnnxCall) -> Given | None:
    """One axis after the other; where bounds are computed the axis is frozen."""
    parts = slices_of(call.onnx)
    if parts is None:
        return None
    out = call.typed(call.value(0))
    for axis, start, end, step in parts:
        assert isinstance(out, Typed)
        if call.onnx.moves(1) or call.onnx.moves(2):
            out = _computed(call, out, axis)
            continue
        shape = [len(range(*slice(start, end, step).indices(n))) if i == axis else n for i, n in enumerate(_sizes(out))]
        given = call.like("slice", shapes=[shape], self=out, dim=axis, start=start, end=end, step=step)
        out = given if isinstance(given, Typed) else None
    return out


def _sizes(value: Typed) -> list[int]:
    return [size(dim) for dim in value.dims]


def _computed(call: OnnxCall, value: Typed, axis: int) -> Typed:
    call.freeze([value.dims[axis]], COMPUTED)
    dims: list[Dim] = [call.fresh(call.shape[i], COMPUTED) if i == axis else dim for i, dim in enumerate(value.dims)]
    return Typed(tuple(dims), value.origin)


def gather(call: OnnxCall) -> Given:
    """By number along one dimension: one fixed position, a table of a vocabulary, or anything, which freezes it."""
    dims, numbers = call.dims_of(0), call.onnx.constant(1)
    axis = call.onnx.attribute("axis", 0) % len(dims)
    if numbers is not None and numbers.ndim == 0:
        return call.like("select", self=call.value(0), dim=axis, index=int(numbers))
    table = call.typed(call.value(0))
    if axis == 0 and len(dims) == 2 and numbers is None and table is not None and table.origin is not None:
        return call.like("embedding", weight=call.value(0), indices=call.value(1))
    chosen = call.dims_of(1)
    call.freeze([dims[axis], *chosen], COMPUTED)
    order = [*range(axis), *[None] * len(chosen), *range(axis + 1, len(dims))]
    call.arguments["self"] = call.value(0)
    return call.derived([*dims[:axis], *chosen, *dims[axis + 1 :]], order)


def gather_elements(call: OnnxCall) -> Given:
    """Along one dimension by number, elsewhere side by side."""
    return call.like("gather", self=call.value(0), index=call.value(1), dim=call.onnx.attribute("axis", 0))


def scatter(call: OnnxCall) -> Given:
    """The first input with entries replaced along one dimension."""
    return call.like("scatter", self=call.value(0), index=call.value(1), src=call.value(2), dim=call.onnx.attribute("axis", 0))


def pad(call: OnnxCall) -> Given | None:
    """Amounts before every dimension, then after; PyTorch names them from the last dimension on."""
    rank = len(call.dims_of(0))
    amounts, axes = call.onnx.numbers("pads", 1), call.onnx.numbers("axes", 3)
    if amounts is None or call.onnx.moves(1) or call.onnx.moves(3):
        return None
    named = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    pairs = {axis: (amounts[i], amounts[i + len(named)]) for i, axis in enumerate(named)}
    flat = [n for axis in range(rank - 1, -1, -1) for n in pairs.get(axis, (0, 0))]
    return call.like("pad", self=call.value(0), pad=flat, mode=call.onnx.attribute("mode", "constant"))


RULES = {
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "ScatterElements": scatter,
    "Pad": pad,
}
