"""The size of every value, by running the model: once, and where sizes may change once more with other ones.

What a model computes from sizes (``Shape``, ``Gather``, ``Concat``, on to ``Reshape``) is thereby evaluated, and what comes
out the same both times is replaced by its value. Such a number speaks of the dense model for good: the root of a head's width
that scales an attention stays what it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.graph.onnx.file import Node, OnnxFile
from secateurs.graph.onnx.reading import tidy
from secateurs.graph.onnx.running import Feeds, largest_difference, run, tolerance

__all__ = ["probe"]

MANY = 64
"""A longer list of integers is data, not a shape."""
TRIED = ((7, 11), (8, 12), (16, 24), (32, 48), (64, 96), (1, 2), (224, 256))
"""Sizes of what is no batch, for the first probe and the second."""


@dataclass(frozen=True)
class Probe:
    """Shapes of all values of one run, the values of those that are small, and what the model returned."""

    shapes: dict[str, tuple[int, ...]]
    values: dict[str, np.ndarray]
    outputs: dict[str, Any]


def probe(model: Any, inputs: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None) -> OnnxFile:
    """Run ``model`` and see.

    Args:
        model: from :func:`~secateurs.graph.onnx.reading.read_model`; it becomes part of the result.
        inputs: Name -> array, or a shape to draw one of; drawn where it is absent.
        sizes: Name of a size that may change -> what it is in the first run.

    Raises:
        BadInput: an input or a size is unknown, or the model does not run with any sizes that were tried.
    """
    _check_names(model, inputs or {}, sizes or {})
    feeds, first, k = _first(model, inputs or {}, sizes or {})
    if not _symbols(model):
        return _folded(model, feeds, first, {}, first)
    others, second = _second(model, feeds, k)
    return _folded(model, feeds, first, others, second)


def _check_names(model: Any, inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    known = {"inputs": [value.name for value in model.graph.input], "sizes": list(_symbols(model))}
    for word, given in (("inputs", inputs), ("sizes", sizes)):
        for name in given:
            if name not in known[word]:
                raise BadInput(f"{word}: the model has no {name!r}; it has {', '.join(known[word]) or 'none'}")


def _shape(value: Any) -> list[int | str]:
    """Sizes of an input, a name for one that may change."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{value.name}.{i}" for i, dim in enumerate(dims)]


def _symbols(model: Any) -> dict[str, bool]:
    """Sizes that may change -> whether they are a batch: first of some input; of a sum, its parts."""
    found: dict[str, bool] = {}
    for value in model.graph.input:
        for i, size in enumerate(_shape(value)):
            for part in size.split("+") if isinstance(size, str) else []:
                if not part.strip().isdigit():
                    found[part.strip()] = found.get(part.strip(), False) or (i == 0 and "+" not in str(size))
    return found


def _draw(model: Any, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs of these sizes: normal numbers, ones for integers and truths (the first words of a vocabulary, nothing masked)."""
    generator = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.input:
        if not value.type.HasField("tensor_type"):
            raise BadInput(f"the input {value.name!r} is no tensor: only tensors are supported")
        shape = [size if isinstance(size, int) else _sum(size, sizes) for size in _shape(value)]
        kind = require("onnx.helper", "onnx").tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        ordinary = np.issubdtype(kind, np.floating)
        feeds[value.name] = (generator.standard_normal(shape) if ordinary else np.ones(shape)).astype(kind)
    return feeds


def _sum(size: str, sizes: Mapping[str, int]) -> int:
    parts = [part.strip() for part in size.split("+")]
    return sum(int(part) if part.isdigit() else sizes[part] for part in parts)


def _first(model: Any, inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[Feeds, Probe, int]:
    given = {name: np.asarray(value) for name, value in inputs.items() if not isinstance(value, tuple)}
    shapes = {name: value if isinstance(value, tuple) else given[name].shape for name, value in inputs.items()}
    known = {**_sizes_of(model, shapes), **sizes}
    reason = ""
    for k, (small, _) in enumerate(TRIED):
        feeds = {**_draw(model, {name: 2 if batch else small for name, batch in _symbols(model).items()} | known), **given}
        try:
            return feeds, _observe(model, feeds), k
        except BadInput as error:
            reason = reason or str(error)
    free = ", ".join(_symbols(model))
    raise BadInput(f"{reason}; give inputs={{name: array}}" + (f", or sizes={{name: number}} for {free}" if free else ""))


def _sizes_of(model: Any, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """What the shapes of inputs make of the sizes that may change."""
    found: dict[str, int] = {}
    for value in model.graph.input:
        own = _shape(value)
        given = shapes.get(value.name, [n if isinstance(n, int) else 0 for n in own])
        if len(given) != len(own) or any(isinstance(a, int) and a != b for a, b in zip(own, given, strict=True)):
            taken, wanted = ("x".join(map(str, shape)) for shape in (given, own))
            raise BadInput(f"the input {value.name!r} is {taken}; the model takes {wanted}")
        found |= {s: n for s, n in zip(own, given, strict=True) if isinstance(s, str) and s in _symbols(model) and n}
    return found


def _second(model: Any, feeds: Feeds, k: int) -> tuple[Feeds, Probe]:
    """Other sizes: all at once, or as many as the model runs with; the input says that the others are what they are now."""
    now = _sizes_of(model, {name: value.shape for name, value in feeds.items()})
    found = _attempt(model, {name: _other(n, TRIED[k]) for name, n in now.items()})
    changed = dict(now) if found else {}
    for name, n in now.items() if found is None else ():
        for size in (n + 1, 2 * n, n + n // 2, n + 32):
            more = _attempt(model, {**now, **changed, name: size})
            if more is not None:
                found, changed[name] = more, size
                break
    _fix(model, {name: n for name, n in now.items() if name not in changed})
    return found if found is not None else (feeds, _observe(model, feeds))


def _other(now: int, tried: tuple[int, int]) -> int:
    return tried[1] if now == tried[0] else now + 1


def _attempt(model: Any, sizes: Mapping[str, int]) -> tuple[Feeds, Probe] | None:
    feeds = _draw(model, sizes)
    try:
        return feeds, _observe(model, feeds)
    except BadInput:
        return None


def _fix(model: Any, sizes: Mapping[str, int]) -> None:
    """Let the inputs say these sizes: with others the model was not seen to run."""
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, _shape(value), strict=True):
            if isinstance(size, str) and set(map(str.strip, size.split("+"))) <= sizes.keys():
                dim.dim_value = _sum(size, sizes)


def _observe(model: Any, feeds: Feeds) -> Probe:
    """One run with every value as an output."""
    onnx = require("onnx", "onnx")
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    there = {value.name for value in model.graph.output}
    for name in [name for node in model.graph.node for name in node.output if name and name not in there]:
        wide.graph.output.append(onnx.ValueInfoProto(name=name))
    found = {name: np.asarray(value) for name, value in run(wide, feeds).items() if isinstance(value, np.ndarray)}
    found |= dict(feeds) | OnnxFile(model, {}, {}).initial
    small = {name: value for name, value in found.items() if value.size <= MANY}
    return Probe({name: value.shape for name, value in found.items()}, small, {name: found[name] for name in there})


def _folded(model: Any, feeds: Feeds, first: Probe, others: Feeds, second: Probe) -> OnnxFile:
    """Replace what was computed from sizes and came to the same twice."""
    onnx = require("onnx", "onnx")
    moving: dict[str, np.ndarray] = {}
    for node in _from_sizes(OnnxFile(model, feeds, first.shapes), first, second):
        names = [name for name in node.outputs if name]
        if all(np.array_equal(first.values[name], second.values[name]) for name in names):
            values = [np.array(first.values[name]) for name in names]
            model.graph.initializer.extend(map(onnx.numpy_helper.from_array, values, names))
            model.graph.node.remove(node.proto)
        else:
            moving |= {name: _changes(first.values[name], second.values[name]) for name in names}
    computed = {name: first.values[name] for name in moving}
    file = OnnxFile(tidy(model), feeds, first.shapes, others, moving, computed)
    for inputs, seen in ((feeds, first), (others or feeds, second)):
        if largest_difference(run(file.model, inputs), seen.outputs) > tolerance(file.initial.values()):
            raise BadInput("the model does not give the same outputs twice, so nothing can be proved: does it draw random "
                           "numbers?")  # fmt: skip
    return file


def _changes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a != b) if a.shape == b.shape else np.ones(a.shape, dtype=bool)


def _from_sizes(file: OnnxFile, first: Probe, second: Probe) -> list[Node]:
    """Nodes that depend on sizes and integers of the file alone: lists of integers, and single numbers made of them."""
    found: dict[str, None] = {}
    nodes: list[Node] = []
    fixed = {name for name, value in file.initial.items() if value.size <= MANY and _countable(value)}
    single = {name for name, value in file.initial.items() if value.size == 1}
    for node in file.nodes:
        if not _depends(node, found, fixed, single) or node.has_graphs:
            continue
        values = [seen.values.get(name) for name in node.outputs if name for seen in (first, second)]
        if all(value is not None and (_countable(value) or value.size == 1) for value in values):
            found |= dict.fromkeys(name for name in node.outputs if name)
            nodes.append(node)
    return nodes


def _depends(node: Node, found: Mapping[str, None], fixed: set[str], single: set[str]) -> bool:
    if node.operator in ("Shape", "Size"):
        return True
    inputs = [name for name in node.inputs if name]
    if not inputs or node.operator.startswith(("Random", "Bernoulli", "Multinomial")):
        return False
    if all(name in found or name in fixed for name in inputs):
        return True
    return any(name in found for name in inputs) and all(name in found or name in fixed or name in single for name in inputs)


def _countable(value: np.ndarray) -> bool:
    return bool(np.issubdtype(value.dtype, np.integer) or value.dtype == bool)
