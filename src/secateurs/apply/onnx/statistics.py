"""Norms of a masked model whose statistics span what leaves: there, removal is compared with statistics over what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from secateurs.apply.literals import blocks
from secateurs.apply.onnx.editing import Editor, Kept
from secateurs.graph.onnx.file import Node, as_array

__all__ = ["keep_statistics"]


def keep_statistics(edit: Editor, proto: Any, node: Node, kept: Kept) -> None:
    """Let a layer or group norm select what stays, normalise it, and give zeros for what leaves."""
    axis = {"LayerNormalization": -1, "GroupNormalization": 1}.get(node.operator)
    remaining = None if axis is None else kept.of(node.inputs[0], axis)
    if axis is None or remaining is None:
        return
    size = node.shape(0)[axis]
    if node.operator == "GroupNormalization":
        edit.set(proto, num_groups=blocks(remaining, size, node.attribute("num_groups"), node.name))
    for at in (1, 2):
        value = node.constant(at)
        if value is not None and value.shape == (size,):
            edit.give(proto, at, edit.constant(_masked(edit, proto.input[at])[remaining.numpy()], "affine"))
    positions = edit.constant(remaining.numpy(), "positions")
    edit.give(proto, 0, edit.before("Gather", [node.inputs[0], positions], axis=axis))
    _spread(edit, proto, remaining, size, axis, len(node.shape(0)))


def _masked(edit: Editor, name: str) -> np.ndarray:
    return next(as_array(each) for each in edit.model.graph.initializer if each.name == name)


def _spread(edit: Editor, proto: Any, remaining: Tensor, size: int, axis: int, rank: int) -> None:
    """A zero behind the last entry, and every position reads its own entry or that zero."""
    pads = [0] * (2 * rank)
    pads[rank + axis % rank] = 1
    edit.after(proto, "Pad", [edit.integers(pads, "pads")])
    places = np.full(size, len(remaining), dtype=np.int64)
    places[remaining.numpy()] = np.arange(len(remaining))
    edit.after(proto, "Gather", [edit.constant(places, "places")], axis=axis)
