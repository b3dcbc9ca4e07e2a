"""Numbers in an ONNX graph that speak of a width: what each becomes once positions are removed.

Attributes, and integers among the initializers. A list of sizes of which some are computed (a batch, a sequence) keeps those
and gets new ones in place of the others; as each is written anew for one node, a list that two nodes share stays right for
both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs.apply.literals import blocks
from secateurs.apply.onnx.editing import Editor, Kept
from secateurs.errors import BadInput
from secateurs.graph.onnx.file import Node
from secateurs.graph.onnx.rules.select import slices_of

__all__ = ["RULES", "rewrite"]


def rewrite(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    """Rewrite the literals of ``node`` in its copy ``proto``.

    Raises:
        BadInput: they cannot express what remains; names the node.
    """
    rule = RULES.get(node.operator)
    if rule is not None and kept.touched(node):
        rule(edit, proto, node, kept)


def _sizes(at: int, free: bool) -> Callable[[Editor, Any, Node, Kept], None]:
    """A list of output sizes at input ``at``; ``free`` where -1 stands for what is left over."""

    def rule(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
        if not node.given(at):
            return
        name = node.inputs[at]
        old = node.constant(at) if node.constant(at) is not None else node.file.computed.get(name)
        if old is None:
            raise BadInput(f"{node.name!r} has sizes that depend on data, and a width of it is cut")
        moving = node.file.moving.get(name, np.zeros(len(old), dtype=bool))
        new = [_entry(node, kept, i - len(old), int(n), bool(m)) for i, (n, m) in enumerate(zip(old, moving, strict=True))]
        if new.count(-1) > int(free):
            raise BadInput(f"{node.name!r}: sizes that change at run time are multiplied with a width that is cut")
        if new != [None if m else int(n) for n, m in zip(old, moving, strict=True)]:
            edit.give(proto, at, _assemble(edit, name, new))

    return rule


def _entry(node: Node, kept: Kept, dim: int, old: int, moves: bool) -> int | None:
    """A new size; ``None`` for one that goes on being computed; -1 for one that is computed from a width and left over."""
    out = node.outputs[0]
    cut = -dim <= kept.rank(out) and kept.of(out, dim) is not None
    if moves:
        return -1 if cut else None
    copied = old == -1 or (old == 0 and node.operator == "Reshape") or (old == 1 and node.operator == "Expand")
    return kept.size(out, dim) if cut and not copied else old


def _assemble(edit: Editor, source: str, entries: Sequence[int | None]) -> str:
    """The list as an initializer, or put together from it and what ``source`` computes."""
    if None not in entries:
        return edit.integers([n for n in entries if n is not None], "sizes")
    pieces = [edit.before("Gather", [source, edit.integers([i], "place")], axis=0) if n is None else edit.integers([n], "size")
              for i, n in enumerate(entries)]  # fmt: skip
    return edit.before("Concat", pieces, axis=0)


def _split(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    axis = node.attribute("axis", 0)
    if all(kept.of(name, axis) is None for name in node.outputs if name):
        return
    sizes = [kept.size(name, axis) for name in node.outputs]
    if node.file.opset < 13:
        edit.set(proto, split=sizes)
    else:
        edit.give(proto, 1, edit.integers(sizes, "split"))
        edit.set(proto, num_outputs=None)


def _slice(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    parts = slices_of(node) or []
    touched = {axis for axis, *_ in parts if kept.of(node.inputs[0], axis) is not None}
    if not touched:
        return
    left = [part if part[0] not in touched else _sliced(edit, proto, node, kept, part) for part in parts]
    axes, starts, ends, steps = ([part[i] for part in left if part is not None] for i in (0, 1, 2, 3))
    if node.file.opset < 10:
        edit.set(proto, starts=starts, ends=ends, axes=axes)
        return
    for at, (word, values) in enumerate((("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)), start=1):
        edit.give(proto, at, edit.integers(values, word))


def _sliced(edit: Editor, proto: Any, node: Node, kept: Kept, part: tuple[int, int, int, int]) -> tuple[int, ...] | None:
    """The slice of what remains along one axis; one that leaves no even steps becomes a selection afterwards."""
    axis, start, end, step = part
    size = node.shape(0)[axis]
    first, _, _ = slice(start, end, step).indices(size)
    out = node.outputs[0]
    wanted = _all(kept.of(out, axis), node.file.shapes[out][axis])
    ranks = _ranks(node, kept.of(node.inputs[0], axis), size, first + step * wanted).tolist()
    gaps = {b - a for a, b in pairwise(ranks)} or {1}
    if len(gaps) > 1 or (node.file.opset < 10 and gaps != {1}):
        edit.after(proto, "Gather", [edit.integers(ranks, "positions")], axis=axis)
        return None
    return (axis, ranks[0], ranks[-1] + 1, gaps.pop()) if ranks else (axis, 0, 0, 1)


def _gather(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    axis = node.attribute("axis", 0)
    index, remaining = node.constant(1), kept.of(node.inputs[0], axis)
    if remaining is not None:
        if index is None:
            raise BadInput(f"{node.name!r} reads a cut dimension by numbers that are computed")
        ranks = _ranks(node, remaining, node.shape(0)[axis], torch.from_numpy(np.array(index)))
        edit.give(proto, 1, edit.constant(ranks.numpy(), "positions"))


def _pad(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    amounts, axes, rank = node.numbers("pads", 1) or [], node.numbers("axes", 3), kept.rank(node.outputs[0])
    named = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    for i, axis in enumerate(named):
        remaining, size = kept.of(node.outputs[0], axis), node.file.shapes[node.outputs[0]][axis]
        if remaining is not None:
            before, after = amounts[i], amounts[i + len(named)]
            amounts[i], amounts[i + len(named)] = int((remaining < before).sum()), int((remaining >= size - after).sum())
    if node.file.opset < 11:
        edit.set(proto, pads=amounts)
    else:
        edit.give(proto, 1, edit.integers(amounts, "pads"))


def _tile(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    given, out = node.inputs[0], node.outputs[0]
    times = node.numbers("repeats", 1)
    if times is None or (node.moves(1) and bool(node.file.moving[node.inputs[1]].any())):
        raise BadInput(f"{node.name!r} repeats a cut tensor a number of times that is computed")
    cut = [kept.of(out, d) is not None or kept.of(given, d) is not None for d in range(len(times))]
    new = [_whole(node, kept.size(out, d), kept.size(given, d)) if cut[d] else n for d, n in enumerate(times)]
    edit.give(proto, 1, edit.integers(new, "repeats"))


def _conv(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    if node.attribute("group", 1) > 1:
        turned = node.operator == "ConvTranspose"
        channels = kept.size(node.outputs[0], 1) if turned else kept.size(node.inputs[0], 1)
        edit.set(proto, group=_whole(node, channels, kept.size(node.inputs[1], 1)))


def _group_norm(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    remaining = kept.of(node.inputs[0], 1)
    if remaining is not None:
        edit.set(proto, num_groups=blocks(remaining, node.shape(0)[1], node.attribute("num_groups"), node.name))


def _rms_norm(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    """The root mean square over the old width, of which the removed part is zero: eps d/d', then the scale by sqrt(d/d')."""
    scale = 2 if node.operator.startswith("Skip") else 1
    rank = kept.rank(node.inputs[0])
    first = rank - 1 if scale == 2 else node.attribute("axis", -1) % rank
    new = math.prod(kept.size(node.inputs[0], d) for d in range(first, rank))
    ratio = math.prod(node.shape(0)[first:]) / new
    if ratio != 1:
        edit.set(proto, epsilon=node.attribute("epsilon", 1e-12 if scale == 2 else 1e-5) * ratio)
        edit.scaled(proto, scale, math.sqrt(ratio))


def _mean(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    """A mean that spans removed positions keeps its divisor, since they count as zeros."""
    rank = kept.rank(node.inputs[0])
    axes = node.numbers("axes", 1) or list(range(rank))
    new = math.prod(kept.size(node.inputs[0], d) for d in axes)
    old = math.prod(node.shape(0)[d] for d in axes)
    if new != old:
        kind = node.file.initial[weight].dtype if (weight := _some_weight(node)) else np.dtype(np.float32)
        edit.after(proto, "Mul", [edit.constant(np.asarray(new / old, dtype=kind), "share")])


def _some_weight(node: Node) -> str | None:
    """An initializer of the numbers the model computes with."""
    names = [name for name, value in node.file.state_dict.items() if value.is_floating_point() and value.ndim]
    return names[0] if names else None


def _recurrent(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    edit.set(proto, hidden_size=kept.size(node.inputs[2], 2))


def _attention(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    """Heads are counted anew; the default scale is that of the present width: write down the one the model was trained with."""
    names = ("num_heads",) * 3 if node.domain else ("q_num_heads", "kv_num_heads", "kv_num_heads")
    if kept.rank(node.inputs[0]) == 4:
        width = node.shape(0)[3]
    else:
        width = node.shape(0)[2] // node.attribute(names[0])
        for at, word in enumerate(names):
            remaining = kept.of(node.inputs[at], 2)
            if remaining is not None:
                edit.set(proto, **{word: blocks(remaining, node.shape(at)[2], node.attribute(word), node.name)})
    if node.attribute("scale") is None:
        edit.set(proto, scale=1 / math.sqrt(width))


def _rotary(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    heads, remaining = node.attribute("num_heads", 0), kept.of(node.inputs[0], 2)
    if heads and remaining is not None:
        edit.set(proto, num_heads=blocks(remaining, node.shape(0)[2], heads, node.name))


def _all(remaining: Tensor | None, size: int) -> Tensor:
    return torch.arange(size) if remaining is None else remaining


def _ranks(node: Node, remaining: Tensor | None, size: int, wanted: Tensor) -> Tensor:
    """Where the old positions ``wanted`` are among those that remain."""
    there = _all(remaining, size)
    wanted = torch.where(wanted < 0, wanted + size, wanted)
    ranks = torch.searchsorted(there, wanted).clamp(max=len(there) - 1)
    if not torch.equal(there[ranks], wanted):
        raise BadInput(f"{node.name!r} reads positions that are removed, or that differ from one index to the next")
    return ranks


def _whole(node: Node, size: int, part: int) -> int:
    if part == 0 or size % part:
        raise BadInput(f"{node.name!r} would turn {part} into {size}, not a multiple")
    return size // part


RULES: dict[str, Callable[[Editor, Any, Node, Kept], None]] = {
    "Reshape": _sizes(1, free=True),
    "Expand": _sizes(1, free=False),
    "ConstantOfShape": _sizes(0, free=False),
    "Resize": _sizes(3, free=False),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Tile": _tile,
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    "GroupNormalization": _group_norm,
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"), _rms_norm),
    "ReduceMean": _mean,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
    "RotaryEmbedding": _rotary,
}
