"""Integers written into a traced program that speak of a width: what each becomes once positions are removed.

Every rule reads the positions that remain of its operator's input and output and rewrites the arguments of one node; nothing
is guessed from the numbers themselves.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx

from secateurs.apply.places import Call, Places, shape
from secateurs.errors import BadInput

__all__ = ["blocks", "centred", "rewrite_literals"]

_aten = torch.ops.aten


def rewrite_literals(module: fx.GraphModule, places: Places) -> None:
    """Rewrite every literal of ``module`` (its tensors are cut elsewhere).

    Raises:
        BadInput: an operator reads a position that is removed, or its literals cannot express what remains; names the node.
    """
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        rule = _RULES.get(node.target.overloadpacket, _sizes)
        if places.touched(node) or any(places.touched(source) for source in node.all_input_nodes):
            rule(module, Call(node), places)


_SIZES = ("size", "shape", "sizes")


def _sizes(_: fx.GraphModule, call: Call, places: Places) -> None:
    """The wanted shape of view, reshape, expand, full and their like: entries that are -1 or computed stay."""
    for name in _SIZES:
        if name in call.names and isinstance(call[name], (list, tuple)):
            wanted = call[name]
            call[name] = [_entry(old, call.node, d - len(wanted), places) for d, old in enumerate(wanted)]


def _entry(old: Any, node: fx.Node, dim: int, places: Places) -> Any:
    if not isinstance(old, int) or old == -1 or places.of(node, dim) is None:
        return old
    return places.size(node, dim)


def _unflatten(_: fx.GraphModule, call: Call, places: Places) -> None:
    first = call["dim"] % len(shape(call["self"]))
    call["sizes"] = [_entry(old, call.node, first + d, places) for d, old in enumerate(call["sizes"])]


def _repeat(_: fx.GraphModule, call: Call, places: Places) -> None:
    name = "repeats" if "repeats" in call.names else "dims"
    times = list(call[name])
    rank = len(shape(call["self"]))
    for d in range(-1, -rank - 1, -1):
        if isinstance(times[d], int) and (places.of(call.node, d) is not None or places.of(call["self"], d) is not None):
            times[d] = _whole(places.size(call.node, d), places.size(call["self"], d), call.node)
    for d in range(-rank - 1, -len(times) - 1, -1):
        times[d] = _entry(times[d], call.node, d, places)
    call[name] = times


def _repeat_interleave(_: fx.GraphModule, call: Call, places: Places) -> None:
    dim = call["dim"]
    if dim is not None and isinstance(call["repeats"], int):
        call["repeats"] = _whole(places.size(call.node, dim), places.size(call["self"], dim), call.node)
        if isinstance(call["output_size"], int):
            call["output_size"] = places.size(call.node, dim)


def _split(module: fx.GraphModule, call: Call, places: Places) -> None:
    """split, chunk and their like become one split with the sizes that remain."""
    dim = call["dim"]
    outputs = range(len(call.node.meta["val"]))
    if all(places.of(call.node, dim, output) is None for output in outputs):
        return
    sizes = [places.size(call.node, dim, output) for output in outputs]
    call.node.target = _aten.split_with_sizes.default
    call.node.args, call.node.kwargs = (call["self"], sizes, dim), {}


def _slice(module: fx.GraphModule, call: Call, places: Places) -> None:
    dim = call["dim"]
    if places.of(call["self"], dim) is None and places.of(call.node, dim) is None:
        return
    size = shape(call["self"])[dim]
    start, _, step = slice(call["start"], call["end"], call["step"]).indices(size)
    wanted = start + step * _kept(call.node, dim, places)
    ranks = _ranks(call, dim, wanted, places).tolist()
    gaps = {b - a for a, b in pairwise(ranks)}
    if len(gaps) > 1:
        _select(module, call, dim, torch.tensor(ranks))
        return
    call["start"], call["end"] = (ranks[0], ranks[-1] + 1) if ranks else (0, 0)
    call["step"] = gaps.pop() if gaps else 1


def _narrow(module: fx.GraphModule, call: Call, places: Places) -> None:
    dim, start = call["dim"], call["start"]
    if places.of(call["self"], dim) is None and places.of(call.node, dim) is None:
        return
    ranks = _ranks(call, dim, start + _kept(call.node, dim, places), places)
    if len(ranks) and int(ranks[-1] - ranks[0]) != len(ranks) - 1:
        _select(module, call, dim, ranks)
        return
    call["start"], call["length"] = (int(ranks[0]) if len(ranks) else 0), len(ranks)


def _one(_: fx.GraphModule, call: Call, places: Places) -> None:
    """select: one position of the dimension."""
    if places.of(call["self"], call["dim"]) is not None:
        index = call["index"] % shape(call["self"])[call["dim"]]
        call["index"] = int(_ranks(call, call["dim"], torch.tensor([index]), places))


def _index_select(module: fx.GraphModule, call: Call, places: Places) -> None:
    if places.of(call["self"], call["dim"]) is not None:
        wanted = _constant(module, call["index"], call.node)[_kept(call.node, call["dim"], places)]
        _select(module, call, call["dim"], _ranks(call, call["dim"], wanted, places))


def _index(module: fx.GraphModule, call: Call, places: Places) -> None:
    """Advanced indexing: a constant that reads a cut dimension gets the new ranks of what it reads."""
    indices = list(call["indices"])
    for dim, index in enumerate(indices):
        if index is not None and places.of(call["self"], dim) is not None:
            values = _constant(module, index, call.node)
            for d, kept in enumerate(places.all(index)[0]):
                values = values if kept is None else values.index_select(d, kept)
            if values.ndim == 1 and sum(i is not None for i in indices) == 1:
                values = _constant(module, index, call.node)[_kept(call.node, dim, places)]
            indices[dim] = _lift(module, call.node, _ranks(call, dim, values, places))
    call["indices"] = indices


def _pad(_: fx.GraphModule, call: Call, places: Places) -> None:
    amounts = list(call["pad"])
    for pair in range(len(amounts) // 2):
        dim = -1 - pair
        if places.of(call.node, dim) is not None:
            kept, size = _kept(call.node, dim, places), shape(call.node)[dim]
            before, after = amounts[2 * pair : 2 * pair + 2]
            amounts[2 * pair : 2 * pair + 2] = [int((kept < before).sum()), int((kept >= size - after).sum())]
    call["pad"] = amounts


def _convolution(_: fx.GraphModule, call: Call, places: Places) -> None:
    if call["groups"] == 1:
        return
    turned = call["transposed"] if "transposed" in call.names else "transpose" in str(call.node.target)
    channels = places.size(call.node, 1) if turned else places.size(call["input"], 1)
    call["groups"] = _whole(channels, places.size(call["weight"], 1), call.node)


def _group_norm(_: fx.GraphModule, call: Call, places: Places) -> None:
    kept = places.of(call["input"], 1)
    if kept is None:
        return
    name = "num_groups" if "num_groups" in call.names else "group"
    call[name] = blocks(kept, shape(call["input"])[1], call[name], call.node.name)
    if "C" in call.names:
        call["C"] = len(kept)


def blocks(kept: Tensor, size: int, groups: int, name: str) -> int:
    """How many of ``groups`` equal runs of ``size`` positions have any in ``kept``; each must keep equally many."""
    counts = torch.bincount(kept // (size // groups), minlength=groups)
    counts = counts[counts > 0]
    if len(counts) and bool((counts != counts[0]).any()):
        raise BadInput(f"{name!r} has {groups} groups of channels, which would keep unequal numbers {counts.tolist()}")
    return len(counts)


def _channel_shuffle(_: fx.GraphModule, call: Call, places: Places) -> None:
    kept = places.of(call["self"], 1)
    if kept is not None:
        call["groups"] = blocks(kept, shape(call["self"])[1], call["groups"], call.node.name)


def _layer_norm(_: fx.GraphModule, call: Call, places: Places) -> None:
    count = len(call["normalized_shape"])
    call["normalized_shape"] = [places.size(call["input"], d - count) for d in range(count)]


def _rms_norm(module: fx.GraphModule, call: Call, places: Places) -> None:
    """The root mean square over the old width, of which the removed part is zero: eps d/d', then the scale by sqrt(d/d')."""
    count, value = len(call["normalized_shape"]), call["input"].meta["val"]
    ratio = math.prod(call["normalized_shape"]) / math.prod(places.size(call["input"], d - count) for d in range(count))
    eps = torch.finfo(value.dtype).eps if call["eps"] is None else call["eps"]
    _layer_norm(module, call, places)
    call["eps"] = eps * ratio
    _scale(module, call.node, math.sqrt(ratio))


def _mean(module: fx.GraphModule, call: Call, places: Places) -> None:
    """A mean that spans removed positions keeps its divisor, since they count as zeros; not in a norm that centres."""
    if centred(call.node):
        return
    rank = len(shape(call["self"]))
    dims = list(call["dim"]) if "dim" in call.names and call["dim"] else list(range(rank))
    new, old = (math.prod(size(d) for d in dims) for size in (lambda d: places.size(call["self"], d),
                                                             lambda d: shape(call["self"])[d]))  # fmt: skip
    if new != old:
        _scale(module, call.node, new / old)


def centred(node: fx.Node) -> bool:
    """Whether a mean is part of a layer norm written out: one of the means of its module is subtracted."""
    path = _path(node)
    same = [other for other in node.graph.nodes if _path(other) == path]
    means = {other for other in same if _packet(other) is _aten.mean}
    return any(means.intersection(other.all_input_nodes) for other in same if _packet(other) is _aten.sub)


def _packet(node: fx.Node) -> Any:
    return node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else None


def _path(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {"": ("",)}).values())
    return str(stack[-1][0])


def _attention(_: fx.GraphModule, call: Call, places: Places) -> None:
    """The default scale is that of the present width: freeze the one the model was trained with."""
    if call["scale"] is None and places.of(call["query"], -1) is not None:
        call["scale"] = 1 / math.sqrt(shape(call["query"])[-1])


def _arange(module: fx.GraphModule, call: Call, places: Places) -> None:
    kept = places.of(call.node, 0)
    if kept is not None:
        _insert(module, call.node, _aten.index_select.default, (0, _lift(module, call.node, kept)))
        call.node.meta = {}  # it still makes them all: the type speaks of what is selected


def _unbind(_: fx.GraphModule, call: Call, places: Places) -> None:
    if places.of(call["self"], call["dim"]) is not None:
        raise BadInput(f"{call.node.name!r} takes a cut dimension apart, position by position")


def _kept(node: fx.Node, dim: int, places: Places) -> Tensor:
    kept = places.of(node, dim)
    return torch.arange(shape(node)[dim]) if kept is None else kept


def _ranks(call: Call, dim: int, wanted: Tensor, places: Places) -> Tensor:
    """Where the old positions ``wanted`` of the input are among those that remain."""
    kept = _kept(call["self"], dim, places)
    if not len(kept):
        return wanted.new_zeros(wanted.shape)
    wanted = torch.where(wanted < 0, wanted + shape(call["self"])[dim], wanted)
    ranks = torch.searchsorted(kept, wanted).clamp(max=len(kept) - 1)
    if not torch.equal(kept[ranks], wanted):
        raise BadInput(f"{call.node.name!r} reads a position that is removed")
    return ranks


def _whole(size: Any, part: Any, node: fx.Node) -> int:
    if part == 0 or size % part:
        raise BadInput(f"{node.name!r} would turn {part} into {size}, not a multiple")
    return int(size // part)


def _constant(module: fx.GraphModule, node: fx.Node, user: fx.Node) -> Tensor:
    if node.op != "get_attr":
        raise BadInput(f"{user.name!r} reads a cut dimension by an index that is computed")
    value = operator.attrgetter(str(node.target))(module)
    return value.detach().cpu()


def _lift(module: fx.GraphModule, before: fx.Node, value: Tensor) -> fx.Node:
    """A new constant of the program, made just before ``before``."""
    name = f"_kept_{sum(str(n.target).startswith('_kept_') for n in module.graph.nodes)}"
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    module.register_buffer(name, value.to(device), persistent=True)
    with module.graph.inserting_before(before):
        return module.graph.get_attr(name)


def _select(module: fx.GraphModule, call: Call, dim: int, ranks: Tensor) -> None:
    source = call["self"]
    call.node.target = _aten.index_select.default
    call.node.args, call.node.kwargs = (source, dim, _lift(module, call.node, ranks)), {}


def _insert(module: fx.GraphModule, node: fx.Node, target: Any, arguments: tuple[Any, ...]) -> None:
    with module.graph.inserting_after(node):
        after = module.graph.call_function(target, (node, *arguments))
    after.meta = dict(node.meta)
    node.replace_all_uses_with(after, delete_user_cb=lambda user: user is not after)


def _scale(module: fx.GraphModule, node: fx.Node, factor: float) -> None:
    _insert(module, node, _aten.mul.Tensor, (factor,))


_CONVOLUTIONS = (
    _aten.convolution, _aten.conv1d, _aten.conv2d, _aten.conv3d,
    _aten.conv_transpose1d, _aten.conv_transpose2d, _aten.conv_transpose3d,
)  # fmt: skip
_SPLITS = (
    _aten.split, _aten.split_with_sizes, _aten.chunk, _aten.tensor_split, _aten.unsafe_split, _aten.unsafe_chunk,
    _aten.unsafe_split_with_sizes,
)  # fmt: skip
_RULES: dict[Any, Callable[[fx.GraphModule, Call, Places], None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_SPLITS, _split),
    **dict.fromkeys((_aten.repeat, _aten.tile), _repeat),
    **dict.fromkeys((_aten.group_norm, _aten.native_group_norm), _group_norm),
    **dict.fromkeys((_aten.layer_norm, _aten.native_layer_norm), _layer_norm),
    **dict.fromkeys((_aten.pad, _aten.constant_pad_nd), _pad),
    _aten.unflatten: _unflatten,
    _aten.repeat_interleave: _repeat_interleave,
    _aten.slice: _slice,
    _aten.narrow: _narrow,
    _aten.select: _one,
    _aten.index_select: _index_select,
    _aten.index: _index,
    _aten.channel_shuffle: _channel_shuffle,
    _aten.rms_norm: _rms_norm,
    _aten.mean: _mean,
    _aten.scaled_dot_product_attention: _attention,
    _aten.arange: _arange,
    _aten.unbind: _unbind,
}
