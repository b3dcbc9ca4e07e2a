"""Whether a model is what a plan of whole structures promised."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateurs.apply.depth import verify_shortened
from secateurs.apply.proof import verify_shrunk
from secateurs.apply.verify import Check
from secateurs.graph import trace
from secateurs.models import unwrap
from secateurs.planning import GroupPlan

__all__ = ["planned_parameters", "planned_structure"]


def planned_structure(model: nn.Module, plan: GroupPlan, dense: nn.Module | None, example: Any) -> list[Check]:
    """Whether a pruned ``model`` has the parameters its plan promises and, given ``dense``, computes the same.

    Raises:
        BadInput: the plan is not one for ``dense``.
    """
    checks = [planned_parameters(model, plan)]
    if dense is None:
        return checks
    smaller, inner = unwrap(model), unwrap(dense)
    if plan.removes_layers:
        return [*checks, *verify_shortened(inner, smaller, plan.keeps, example).checks]
    graph = plan.check(trace(inner, example))
    return [*checks, *verify_shrunk(inner, smaller, graph, plan.keeps, example).checks]


def planned_parameters(model: nn.Module, plan: GroupPlan) -> Check:
    """Whether the model has as many parameters as its plan leaves."""
    found, promised = sum(p.numel() for p in unwrap(model).parameters()), plan.after.parameters
    return Check("planned parameters", found == promised, f"{found}" + ("" if found == promised else f", promised {promised}"))
