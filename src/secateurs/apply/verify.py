"""Verify: the planned entries are zero, the counts are exact, and what was saved reloads to the same model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateurs.errors import BadInput, BrokenPromise
from secateurs.formats import load
from secateurs.models import unwrap
from secateurs.planning import GroupPlan, Plan

__all__ = ["Check", "Verification", "planned_counts", "planned_zeros", "same_tensors", "verify"]


@dataclass(frozen=True)
class Check:
    """One promise: its name, whether it holds, and what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """All checks of one :func:`verify`; true when every one holds."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every promise holds."""
        return all(c.ok for c in self.checks)

    def __bool__(self) -> bool:
        return self.ok

    def require(self) -> Verification:
        """Itself, or :class:`BrokenPromise` naming the checks that failed."""
        if not self.ok:
            raise BrokenPromise("; ".join(f"{c.name}: {c.detail}" for c in self.checks if not c.ok))
        return self


def verify(
    model: nn.Module,
    plan: Plan | GroupPlan | None = None,
    *,
    dense: nn.Module | None = None,
    example: Any = None,
    path: str | Path | None = None,
    factory: Callable[[], nn.Module] | None = None,
) -> Verification:
    """Check a pruned ``model`` against what was promised.

    With ``plan``: every planned entry is exactly zero, and each mask removes the count its entry names. With ``dense`` (the
    model before) and ``example``: ``model`` computes what ``dense`` computes with the plan's entries set to zero, to the bit.
    With a plan of whole structures, ``model`` has the parameters it promises, and computes what ``dense`` does with the removed
    indices set to zero, or the removed blocks skipped: in float64, to 1e-9 of the largest output (1e-4 where the model insists
    on less precision), on the example, on random inputs, and on other batch and spatial sizes where ``dense`` takes them.
    With ``path`` (and ``factory`` for a plain module): the saved folder reloads to the same tensors and, on ``example``
    (a tensor, a tuple of arguments, or a mapping of them), the same outputs, to the bit.

    Raises:
        BadInput: nothing to verify against, or the plan is not one for ``dense``.
    """
    if dense is not None and (plan is None or example is None):
        raise BadInput("verify(dense=...) compares outputs under a plan: give plan= and example= too")
    checks: list[Check] = []
    if isinstance(plan, GroupPlan):
        from secateurs.apply.planned import planned_structure  # here: it builds on this file

        checks += planned_structure(model, plan, dense, example)
    elif plan is not None:
        checks += [planned_counts(plan), planned_zeros(dict(unwrap(model).named_parameters(remove_duplicate=False)), plan)]
        checks += [] if dense is None else [_masked(model, plan, dense, example)]
    if path is not None:
        again = load(path, factory)
        checks.append(same_tensors(unwrap(model).state_dict(), unwrap(again).state_dict()))
        if example is not None:
            checks.append(_outputs("reloaded model", model, again, example))
    if not checks:
        raise BadInput("nothing to verify against: give plan=, dense= with example=, or path=")
    return Verification(tuple(checks))


def _masked(model: nn.Module, plan: Plan, dense: nn.Module, example: Any) -> Check:
    twin = copy.deepcopy(dense)
    plan.replay(twin, undoable=False)
    return _outputs("masked dense model", model, twin, example)


def planned_counts(plan: Plan) -> Check:
    """Whether every mask removes what its entry says."""
    kept = plan.masks.kept()
    wrong = [e.name for e in plan.entries if e.size - kept[e.name] != e.removed]
    detail = f"wrong in {wrong[0]!r}" if wrong else f"{plan.removed} of {plan.size} entries removed"
    return Check("exact counts", not wrong, detail)


def planned_zeros(tensors: Mapping[str, torch.Tensor], plan: Plan) -> Check:
    """Whether every planned entry of ``tensors`` (by parameter name) is exactly zero."""
    odd = [e.name for e in plan.entries if e.name not in tensors or tuple(tensors[e.name].shape) != e.shape]
    if odd:
        return Check("planned entries are zero", False, f"{odd[0]!r} is missing or has another shape ({len(odd)} in all)")
    alive = {e.name: int(torch.count_nonzero(tensors[e.name].detach().cpu()[~plan.masks[e.name]])) for e in plan.entries}
    wrong = [f"{n} non-zero in {name!r}" for name, n in alive.items() if n]
    return Check("planned entries are zero", not wrong, ", ".join(wrong[:3]) or f"{plan.removed} in {len(alive)} tensors")


def same_tensors(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Check:
    """Whether two state dicts hold the same tensors under the same names."""
    wrong = [n for n in {**mine, **theirs} if n not in mine or n not in theirs or not _same(mine[n], theirs[n])]
    return Check("reloaded tensors", not wrong, f"{wrong[0]!r} differs" if wrong else f"{len(mine)} equal")


@torch.no_grad()
def _outputs(name: str, model: nn.Module, other: nn.Module, example: Any) -> Check:
    ours, theirs = _run(model, example), _run(other, example)
    what = f"outputs equal those of the {name}"
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return Check(what, False, f"shapes {[tuple(t.shape) for t in ours]} against {[tuple(t.shape) for t in theirs]}")
    worst = max(float((a.double() - b.double()).abs().max()) if a.numel() else 0.0 for a, b in zip(ours, theirs, strict=True))
    equal = all(_same(a, b) for a, b in zip(ours, theirs, strict=True))
    return Check(what, equal, f"largest difference {worst:.3g}")


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return bool(a == b)
    return a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())


def _run(model: nn.Module, example: Any) -> list[torch.Tensor]:
    was = {m: m.training for m in model.modules()}
    model.eval()
    try:
        if isinstance(example, Mapping):
            out = model(**example)
        else:
            out = model(*example) if isinstance(example, (tuple, list)) else model(example)
    finally:
        for module, mode in was.items():
            module.training = mode
    tensors = [t.detach().cpu() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]
    if not tensors:
        raise BadInput(f"the model's output, a {type(out).__name__}, holds no tensors to compare; give verify a model that "
                       "returns some")  # fmt: skip
    return tensors
