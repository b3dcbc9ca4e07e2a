"""``secateurs prune`` and ``plan`` of an ONNX file, from file to file, and ``secateurs export`` to one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs.cli.examples import example_of
from secateurs.cli.opening import Source
from secateurs.cli.planning import _data, _show, check_free, tell_plan
from secateurs.cli.proving import as_data
from secateurs.cli.showing import bytes_text, dump, facts, stages
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


def prune_file(path: Path, recipe: Recipe, inputs: Sequence[str], out: Path, overwrite: bool, as_json: bool) -> bool:
    """Read, prune, verify with onnxruntime, write and print; true, for what does not verify is not written.

    Raises:
        BadInput: before anything is written.
        BrokenPromise: the smaller model does not compute what the masked one does.
    """
    with stages(2) as at:
        at.begin("reading")
        model = read_model(path)
        at.begin("pruning")
        done = prune_onnx(model, recipe, out=out, inputs=_shapes(model, inputs), overwrite=overwrite)
    stored = out.expanduser().stat().st_size
    if as_json:
        dump({"out": str(out), "stored_bytes": stored, **_data(done.plan), "verified": as_data(done.verification)})
    else:
        checks = "; ".join(f"{c.name}: {c.detail}" for c in done.verification.checks)
        _show(done.plan, {"speed": _SPEED, "verified": checks, "written": f"{out} ({bytes_text(stored)})"})
    return True


def plan_file(path: Path, recipe: Recipe, inputs: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print what would go, what that saves and what is frozen; write the plan where ``out`` is given.

    Raises:
        BadInput: no structure is named, ``out`` is not an empty folder, or whatever else cannot work.
    """
    check_free(out)
    with stages(2) as at:
        at.begin("reading")
        model = read_model(path)
        at.begin("planning")
        found = plan_onnx(model, recipe, inputs=_shapes(model, inputs))
    tell_plan(found, path, out, {"speed": _SPEED}, as_json)


def export_file(source: Source, inputs: Sequence[str], out: Path, overwrite: bool, as_json: bool) -> bool:
    """Write the model of ``source`` as an ONNX file, with onnxruntime's outputs on an example as the proof; true.

    The file takes inputs of the example's sizes.

    Raises:
        BadInput: before anything is written.
        BrokenPromise: onnxruntime's outputs differ from the module's.
    """
    with stages(2) as at:
        at.begin("opening")
        opened = source.open()
        at.begin("exporting")
        done = export_onnx(opened.model, example_of(opened.model, inputs), out, overwrite=overwrite)
    told = f"largest difference from the module's outputs {done.difference:.3g}, {done.tolerance:g} allowed"
    stored = done.path.stat().st_size
    if as_json:
        dump({"out": str(out), "format": "onnx", "stored_bytes": stored, "opset": done.opset,
              "verified": {"ok": True, "difference": done.difference, "tolerance": done.tolerance}})  # fmt: skip
    else:
        facts({"written": f"{out} ({bytes_text(stored)}, version {done.opset} of the operators)", "verified": told})
    return True


_SPEED = "not measured: time the two files in onnxruntime on the machine that will run them"


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
