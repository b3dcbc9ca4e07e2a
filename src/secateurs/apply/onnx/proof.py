"""Proof that a cut ONNX model computes what the dense one does with the removed indices at zero."""

from __future__ import annotations

from typing import Any

from secateurs.apply.onnx.cutting import masked
from secateurs.apply.slicing import slice_tensors
from secateurs.apply.verify import Check, Verification
from secateurs.errors import BadInput
from secateurs.graph.groups import Graph, Keeps
from secateurs.graph.onnx.file import as_array
from secateurs.graph.onnx.running import Feeds, largest_difference, random_feeds, run, tolerance
from secateurs.graph.onnx.walk import file_of, weights

__all__ = ["verify_cut"]


def verify_cut(graph: Graph, keeps: Keeps, smaller: Any, *, seed: int = 0) -> Verification:
    """Run ``smaller`` (of :func:`~secateurs.apply.onnx.cut`) and the masked dense model beside it with onnxruntime.

    On the inputs of the first run, on random ones like them and, where sizes may change, on other sizes. Parameters are
    counted: the sum over the cut tensors of the products of what each dimension keeps.

    Raises:
        BadInput: the smaller model does not run.
    """
    file, reference = file_of(graph), masked(graph, keeps)
    most = min((g.size for g in graph.groups if g.frozen == "a vocabulary"), default=2)
    allowed = tolerance(file.initial.values())
    checks = [_count(graph, keeps, smaller), _same("the first inputs", reference, smaller, file.feeds, allowed)]
    cases = [("random inputs like them", random_feeds(file.feeds, seed, most))]
    if file.others:
        sizes = ", ".join("x".join(map(str, value.shape)) for value in file.others.values())
        cases.append((f"inputs of other sizes ({sizes})", random_feeds(file.others, seed + 1, most)))
        checks.append(_same(f"inputs drawn with other sizes ({sizes})", reference, smaller, file.others, allowed))
    for what, feeds in cases:
        if runs(reference, feeds):
            checks.append(_same(what, reference, smaller, feeds, allowed))
    return Verification(tuple(checks))


def runs(model: Any, feeds: Feeds) -> bool:
    """Whether ``model`` takes ``feeds``: random integers may mean nothing to it, which proves nothing."""
    try:
        run(model, feeds)
    except BadInput:
        return False
    return True


def _same(what: str, reference: Any, smaller: Any, feeds: Feeds, allowed: float) -> Check:
    gap = largest_difference(run(smaller, feeds), run(reference, feeds))
    detail = f"largest difference {gap:.3g} of the largest output, {allowed:g} allowed"
    return Check(f"outputs equal the masked model's on {what}", gap <= allowed, detail)


def _count(graph: Graph, keeps: Keeps, smaller: Any) -> Check:
    cut = slice_tensors(graph, keeps, weights(graph))
    there = {proto.name: as_array(proto) for proto in smaller.graph.initializer}
    wrong = [name for name, value in cut.items() if name in there and there[name].shape != tuple(value.shape)]
    total = sum(value.numel() for value in cut.values() if value.is_floating_point())
    return Check("planned shapes", not wrong, f"{wrong[0]!r} is {there[wrong[0]].shape}" if wrong else f"{total} parameters")
