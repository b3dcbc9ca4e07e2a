"""Proof from the shell: what a folder holds is what its plan promised, and it reloads to the same model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from secateurs.apply import Check, Verification, planned_zeros, same_tensors, verify
from secateurs.cli.opening import Opened, Source
from secateurs.cli.showing import dump, facts, stages
from secateurs.cli.writing import read_beside
from secateurs.errors import BadInput
from secateurs.formats import read_info, read_tensors
from secateurs.formats.manifest import INFO
from secateurs.planning import Plan

__all__ = ["as_data", "verify_folder", "verify_written"]


def verify_written(opened: Opened, plan: Plan | None, out: Path, trust_remote_code: bool) -> Verification:
    """The model of ``opened`` against its plan and against what lies in ``out`` now."""
    if (out / INFO).is_file():
        rebuilt = read_info(out)["model"].get("kind") == "huggingface"
        factory = None if rebuilt else opened.factory or (lambda: copy.deepcopy(opened.model))
        return verify(opened.model, plan, path=out, factory=factory)
    again = Source(out, trust_remote_code=trust_remote_code).open().model
    planned = () if plan is None else verify(again, plan).checks
    return Verification((*planned, same_tensors(opened.model.state_dict(), again.state_dict())))


def verify_folder(source: Source, as_json: bool) -> bool:
    """Print what holds of a saved folder and return whether all of it does.

    A plain network is checked tensor by tensor where no factory builds it.

    Raises:
        BadInput: not a saved folder, or one without a plan or checksums to hold it to.
        CorruptFile: damaged.
    """
    folder = source.path.expanduser()
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r} is not a folder: verify takes one that secateurs wrote")
    with stages(2) as at:
        at.begin("files")
        checks = _file_checks(folder)
        at.begin("plan")
        checks += _plan_checks(folder, read_beside(folder)[0].plan, source)
    if not checks:
        raise BadInput(f"{str(folder)!r} has neither a plan nor checksums: there is no promise in it to verify")
    result = Verification(tuple(checks))
    if as_json:
        dump({"folder": str(folder), **as_data(result)})
    else:
        facts({f"{'ok' if c.ok else 'BROKEN'}: {c.name}": c.detail for c in checks})
    return result.ok


def as_data(result: Verification) -> dict[str, Any]:
    """For JSON."""
    return {"ok": result.ok, "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in result.checks]}


def _file_checks(folder: Path) -> list[Check]:
    if not (folder / INFO).is_file():
        return []
    info, tensors = read_info(folder), read_tensors(folder)
    return [Check("checksums", True, f"{len(info['files'])} files, {len(tensors)} tensors, all whole")]


def _plan_checks(folder: Path, plan: Plan | None, source: Source) -> list[Check]:
    plain = (folder / INFO).is_file() and read_info(folder)["model"].get("kind") != "huggingface"
    if plain and source.factory is None:
        return [] if plan is None else [planned_zeros(read_tensors(folder), plan)]
    model = source.open().model
    loads = Check("loads", True, type(model).__name__)
    return [loads] if plan is None else [loads, *verify(model, plan).checks]
