"""``secateurs prune`` and ``plan`` of an ONNX file, from file to file, and ``secateurs export`` to one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateurs.apply import Verification
from secateurs.cli.examples import example_of
from secateurs.cli.opening import Source
from secateurs.cli.planning import check_free, exported_check, tell_plan, tell_pruned
from secateurs.cli.proving import as_data, as_facts
from secateurs.cli.showing import bytes_text, dump, facts, stages
from secateurs.cli.writing import ONNX, Target
from secateurs.errors import BadInput, near
from secateurs.formats.onnx import export_onnx
from secateurs.graph.onnx.reading import read_model
from secateurs.recipe import Recipe
from secateurs.train.onnx_file import plan_onnx, prune_onnx

__all__ = ["export_file", "is_onnx", "plan_file", "prune_file"]

_INPUT = re.compile(r"(?:(?P<name>.+)=)?(?P<shape>\d+(?:x\d+)*)")


def is_onnx(path: Path) -> bool:
    """Whether MODEL is an ONNX file, by its name."""
    return path.suffix == ".onnx"


def prune_file(path: Path, recipe: Recipe, inputs: Sequence[str], out: Path, overwrite: bool, as_json: bool,
               odd: Mapping[str, Any] | None = None) -> bool:  # fmt: skip
    """Read, prune, verify with onnxruntime, write and print; true, for what does not verify is not written.

    ``odd`` are flags, with their values, that say nothing of an ONNX file.

    Raises:
        BadInput: before anything is written; one of ``odd`` was given.
        BrokenPromise: the smaller model does not compute what the masked one does.
    """
    Target(out, ONNX, overwrite).check(ONNX)
    _check_plain(path, recipe, odd or {})
    with stages(2) as at:
        at.begin("reading")
        model = read_model(path)
        at.begin("pruning")
        done = prune_onnx(model, recipe, out=out, inputs=_shapes(model, inputs), overwrite=overwrite)
    tell_pruned(done.plan, done.verification, out, {**_left_open(model, inputs), "speed": _SPEED}, as_json)
    return True


def _check_plain(path: Path, recipe: Recipe, odd: Mapping[str, Any]) -> None:
    for flag, value in odd.items():
        if value:
            raise BadInput(f"{flag} says nothing of an ONNX file, {str(path)!r}: leave it out, or prune the PyTorch model")
    if not recipe.structures:
        raise BadInput("of an ONNX file whole structures can be removed: say which and how much, as --structure channels "
                       "--flops 0.5")  # fmt: skip


def plan_file(path: Path, recipe: Recipe, inputs: Sequence[str], out: Path | None, as_json: bool,
              odd: Mapping[str, Any] | None = None) -> None:  # fmt: skip
    """Print what would go, what that saves and what is frozen; write the plan where ``out`` is given.

    Raises:
        BadInput: no structure is named, ``out`` is not an empty folder, or whatever else cannot work.
    """
    check_free(out)
    _check_plain(path, recipe, odd or {})
    with stages(2) as at:
        at.begin("reading")
        model = read_model(path)
        at.begin("planning")
        found = plan_onnx(model, recipe, inputs=_shapes(model, inputs))
    tell_plan(found, path, out, {**_left_open(model, inputs), "speed": _SPEED}, as_json)


def export_file(source: Source, inputs: Sequence[str], out: Path, overwrite: bool, as_json: bool) -> bool:
    """Write the model of ``source`` as an ONNX file, with onnxruntime's outputs on an example as the proof; true.

    The file takes inputs of the example's sizes.

    Raises:
        BadInput: before anything is written.
        BrokenPromise: onnxruntime's outputs differ from the module's.
    """
    Target(out, ONNX, overwrite).check(ONNX)
    with stages(2) as at:
        at.begin("opening")
        opened = source.open()
        at.begin("exporting")
        done = export_onnx(opened.model, example_of(opened.model, inputs), out, overwrite=overwrite)
    proof = Verification((exported_check(done),))
    stored = done.path.stat().st_size
    if as_json:
        dump({"out": str(out), "format": "onnx", "stored_bytes": stored, "opset": done.opset,
              "verified": {**as_data(proof), "difference": done.difference, "tolerance": done.tolerance}})  # fmt: skip
    else:
        facts(as_facts(proof))
        facts({"written": f"{out} ({bytes_text(stored)}, opset {done.opset})"})
    return True


_SPEED = "not measured: time the two files in onnxruntime on the machine that will run them"


def _left_open(model: Any, given: Sequence[str]) -> dict[str, str]:
    """Multiply-adds are of one run, whose sizes were chosen here where neither the file nor ``given`` says them."""
    sizes = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim if not dim.HasField("dim_value")]
             for value in model.graph.input if value.name not in _shapes(model, given)}  # fmt: skip
    words = [f"{name}: {', '.join(found)}" if any(found) else name for name, found in sizes.items() if found]
    return {"counted on": f"sizes tried for what the file leaves open ({'; '.join(words)}); --input sets them"} if words else {}


def _shapes(model: Any, given: Sequence[str]) -> dict[str, Any]:
    """``--input`` as shapes by the inputs' names; without names in the model's order."""
    names = [value.name for value in model.graph.input]
    found: dict[str, Any] = {}
    for i, text in enumerate(given):
        match = _INPUT.fullmatch(text)
        if match is None:
            raise BadInput(f"--input {text!r}: write a shape, as 1x3x32x32 or {names[0]}=1x3x32x32; the types are the model's")
        name = match["name"] or (names[i] if i < len(names) else "")
        if name not in names:
            raise BadInput(f"--input {text!r}: the model takes {', '.join(names)}" + near(name, names))
        found[name] = tuple(map(int, match["shape"].split("x")))
    return found
