"""Proof from the shell: what a folder holds is what its plan promised, and it reloads to the same model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs.apply import Check, Verification, planned_parameters, planned_zeros, same_tensors, verify
from secateurs.cli.examples import example_of
from secateurs.cli.opening import Opened, Source
from secateurs.cli.showing import dump, facts, stages
from secateurs.cli.writing import read_beside
from secateurs.errors import BadInput
from secateurs.formats import read_info, read_tensors
from secateurs.formats.manifest import INFO
from secateurs.planning import GroupPlan, Plan

__all__ = ["as_data", "as_facts", "verify_folder", "verify_written"]


def verify_written(opened: Opened, plan: Plan | GroupPlan | None, out: Path, trust_remote_code: bool) -> Verification:
    """The model of ``opened`` against its plan and against what lies in ``out`` now."""
    if isinstance(plan, GroupPlan):
        whole = verify_written(opened, None, out, trust_remote_code)
        return Verification((planned_parameters(opened.model, plan), *whole.checks))
    if (out / INFO).is_file():
        rebuilt = read_info(out)["model"].get("kind") == "huggingface"
        factory = None if rebuilt else opened.factory or (lambda: copy.deepcopy(opened.model))
        return verify(opened.model, plan, path=out, factory=factory)
    again = Source(out, trust_remote_code=trust_remote_code).open().model
    planned = () if plan is None else verify(again, plan).checks
    return Verification((*planned, same_tensors(opened.model.state_dict(), again.state_dict())))


def verify_folder(source: Source, as_json: bool, dense: Source | None = None, inputs: Sequence[str] = ()) -> bool:
    """Print what holds of a saved folder and return whether all of it does.

    A plain network is checked tensor by tensor where no factory builds it. With ``dense``, the model before, outputs are
    compared under the plan on ``inputs`` (shapes; see :func:`secateurs.cli.examples.example_of`).

    Raises:
        BadInput: not a saved folder, one without a plan or checksums to hold it to, or ``dense`` is not what was pruned.
        CorruptFile: damaged.
    """
    folder = source.path.expanduser()
    if folder.suffix == ".onnx":
        raise BadInput(f"{str(folder)!r} is an ONNX file, which holds no plan: secateurs prune and export compare theirs in "
                       "onnxruntime before they write it")  # fmt: skip
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r} is not a folder: verify takes one that secateurs wrote")
    with stages(2) as at:
        at.begin("files")
        checks = _file_checks(folder)
        at.begin("plan")
        checks += _plan_checks(folder, read_beside(folder)[0].plan, source, dense, inputs)
    if not checks:
        raise BadInput(f"{str(folder)!r} has neither a plan nor checksums: there is no promise in it to verify")
    result = Verification(tuple(checks))
    if as_json:
        dump({"folder": str(folder), **as_data(result)})
    else:
        facts(as_facts(result))
    return result.ok


def as_data(result: Verification) -> dict[str, Any]:
    """For JSON."""
    return {"ok": result.ok, "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in result.checks]}


def as_facts(result: Verification) -> dict[str, str]:
    """For a person: a line per check."""
    return {f"{'ok' if c.ok else 'BROKEN'}: {c.name}": c.detail for c in result.checks}


def _file_checks(folder: Path) -> list[Check]:
    if not (folder / INFO).is_file():
        return []
    info, tensors = read_info(folder), read_tensors(folder)
    return [Check("checksums", True, f"{len(info['files'])} files, {len(tensors)} tensors, all whole")]


def _plan_checks(folder: Path, plan: Plan | GroupPlan | None, source: Source, dense: Source | None,
                 inputs: Sequence[str]) -> list[Check]:  # fmt: skip
    if dense is not None and plan is None:
        raise BadInput(f"--dense compares outputs under a plan, and {str(folder)!r} has none")
    info = read_info(folder) if (folder / INFO).is_file() else None
    if info is not None and info["model"].get("kind") != "huggingface" and source.factory is None and dense is None:
        if isinstance(plan, GroupPlan):
            return [_counted(info["sizes"]["parameters"], plan)]
        return [] if plan is None else [planned_zeros(read_tensors(folder), plan)]
    model = source.open().model
    loads = Check("loads", True, type(model).__name__)
    if plan is None:
        return [loads]
    if dense is None:
        return [loads, *verify(model, plan).checks]
    before = dense.open().model
    return [loads, *verify(model, plan, dense=before, example=example_of(before, inputs)).checks]


def _counted(found: int, plan: GroupPlan) -> Check:
    return Check("planned parameters", found == plan.after.parameters, f"{found}, promised {plan.after.parameters}")
