"""``secateurs plan``, and ``secateurs prune`` where whole structures go: look before leaping, then leap with the proof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs.apply import Check, Verification
from secateurs.cli.calibrating import Calibrated
from secateurs.cli.examples import example_of
from secateurs.cli.inputs import loss_of
from secateurs.cli.opening import Opened, Source
from secateurs.cli.proving import as_data, as_facts, verify_written
from secateurs.cli.showing import Stages, bytes_text, dump, facts, share, show, stages
from secateurs.cli.writing import ONNX, Beside, Target, stored_bytes
from secateurs.errors import BadInput
from secateurs.formats import save
from secateurs.formats.onnx import Exported, export_onnx
from secateurs.planning import Cost, GroupPlan
from secateurs.recipe import Recipe
from secateurs.report import Table
from secateurs.train import prune
from secateurs.train.structured import PrunedGroups, plan

__all__ = ["check_free", "exported_check", "plan_model", "prune_structures", "tell_plan", "tell_pruned"]

_SHOWN = 40  # groups in the table


def plan_model(source: Source, recipe: Recipe, inputs: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print what would go, what that saves and what is frozen; write the plan where ``out`` is given.

    Raises:
        BadInput: no structure is named, ``out`` is not an empty folder, or whatever else cannot work.
    """
    check_free(out)
    with stages(2) as at:
        at.begin("opening")
        opened = source.open()
        at.begin("planning")
        found = plan(opened.model, recipe, example=example_of(opened.model, inputs))
    tell_plan(found, source.path, out, {}, as_json)


def check_free(out: Path | None) -> None:
    """Raise :class:`BadInput` where something is at ``out`` already."""
    if out is not None and out.exists() and (out.is_file() or any(out.iterdir())):
        raise BadInput(f"--out {str(out)!r} exists: give another name")


def tell_plan(found: GroupPlan, model: Path, out: Path | None, more: dict[str, str], as_json: bool) -> None:
    """Write the plan where ``out`` is given, and print it, with ``more`` facts where a person reads."""
    if out is not None:
        found.save(out)
    if as_json:
        dump({"model": str(model), **_data(found)})
    else:
        _show(found, more | ({} if out is None else {"written": str(out)}))


def prune_structures(source: Source, recipe: Recipe, inputs: Sequence[str], target: Target, text: Calibrated,
                     as_json: bool) -> bool:  # fmt: skip
    """Open, prune, write, verify and print; whether every promise was kept. ``text`` is for criteria that need gradients.

    Raises:
        BadInput: before anything is written.
        BrokenPromise: the smaller model does not compute what the masked one does.
    """
    target.check(ONNX)
    odd = {"--perplexity": text.perplexity, "--blocks": text.walk.get("blocks"), "--only-blocks": text.walk.get("only_blocks")}
    for flag, value in odd.items():
        if value:
            raise BadInput(f"{flag} goes with methods that walk through blocks, not with structures; secateurs evaluate tells "
                           "the perplexity of what is written")  # fmt: skip
    with stages(4) as at:
        at.begin("opening")
        opened = source.open()
        at.begin("pruning")
        drawn = text.drawn(opened, recipe.seed, source.trust_remote_code)
        data: dict[str, Any] = {} if drawn is None else {"calibration": drawn.batches, "loss": loss_of(str(text.source))}
        example = example_of(opened.model, inputs)
        done = prune(opened.model, recipe, example=example, **data)
        assert isinstance(done, PrunedGroups)
        if target.format == ONNX:
            at.begin("exporting")
            file = export_onnx(done.model, example, target.path, overwrite=target.overwrite)
            written: Sequence[Check] = [exported_check(file)]
        else:
            written = _write_folder(opened, done, source, target, at)
    proof = Verification((*(() if done.verification is None else done.verification.checks), *written))
    tell_pruned(done.plan, proof, target.path, {}, as_json)
    return proof.ok


def _write_folder(opened: Opened, done: PrunedGroups, source: Source, target: Target, at: Stages) -> Sequence[Check]:
    """Save it, and see that what lies there is what was saved."""
    if done.is_exported:
        raise BadInput(f"the smaller {type(opened.model).__name__} exists as an exported program only ({done.why}), which no "
                       "folder holds: add --format onnx and --out NAME.onnx to write it as an ONNX file; in Python, "
                       "sc.prune(...).model is that program")  # fmt: skip
    at.begin("writing")
    save(done.model, target.path, recipe=done.recipe, plan=Beside(done.plan, done.recipe, source.path), report=done.report,
         format=target.format, overwrite=target.overwrite)  # fmt: skip
    at.begin("verifying")
    smaller = Opened(done.model, opened.path, opened.kind, opened.factory)
    return verify_written(smaller, None, target.path, source.trust_remote_code).checks


def exported_check(done: Exported) -> Check:
    """What was seen before an ONNX file was written."""
    detail = f"largest difference {done.difference:.3g} of the largest output, {done.tolerance:g} allowed"
    return Check("onnxruntime's outputs equal the module's on the example", done.difference <= done.tolerance, detail)


def tell_pruned(plan: GroupPlan, proof: Verification, out: Path, more: dict[str, str], as_json: bool) -> None:
    """Print what went, the proof, and what lies at ``out``, with ``more`` facts where a person reads."""
    stored = stored_bytes(out.expanduser())
    if as_json:
        dump({"out": str(out), "stored_bytes": stored, **_data(plan), "verified": as_data(proof)})
        return
    _show(plan, more)
    facts(as_facts(proof))
    facts({"written": f"{out} ({bytes_text(stored)})"})


def _data(found: GroupPlan) -> dict[str, Any]:
    return {"recipe": found.recipe, "groups": found.report(), "before": vars(found.before), "after": vars(found.after),
            "frozen": [vars(each) for each in found.frozen]}  # fmt: skip


def _show(found: GroupPlan, more: dict[str, str]) -> None:
    rows = found.report()
    lines = tuple((row["name"], row["kind"], str(row["size"]), str(row["kept"]), share(row["ratio"])) for row in rows)
    shown = (lines[:-1][:_SHOWN], lines[-1:])
    show(Table(("group", "kind", "size", "kept", "removed"), shown, left=2))
    hidden = len(lines) - 1 - _SHOWN
    facts({
        **({"not shown": f"{hidden} groups more; --json lists all"} if hidden > 0 else {}),
        **_savings(found.before, found.after),
        **_frozen(found),
        "speed": "secateurs advise measures what this gains in time on this machine",
        **more,
    })  # fmt: skip


def _savings(before: Cost, after: Cost) -> dict[str, str]:
    counts = {"parameters": (before.parameters, after.parameters), "multiply-adds": (before.multiply_adds, after.multiply_adds)}
    said = {name: f"{old:,}, then {new:,} ({share(new / max(old, 1))} left)" for name, (old, new) in counts.items()}
    return {**said, "bytes": f"{bytes_text(before.bytes)}, then {bytes_text(after.bytes)}"}


def _frozen(found: GroupPlan) -> dict[str, str]:
    """How many axes stay as they are, by reason."""
    reasons: dict[str, int] = {}
    for each in found.frozen:
        reasons[each.reason] = reasons.get(each.reason, 0) + 1
    listed = [f"{reason} ({count})" for reason, count in list(reasons.items())[:4]]
    more = [] if len(reasons) <= 4 else [f"and {len(reasons) - 4} reasons more"]
    return {"frozen": "; ".join([*listed, *more])} if reasons else {}
