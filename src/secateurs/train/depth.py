"""Remove whole repeated blocks: score, choose, cut, verify. What is left computes what the dense model does without them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from secateurs.apply.depth import shorten, verify_shortened
from secateurs.errors import BadInput
from secateurs.formats.depth import new_name
from secateurs.models import survey, unwrap
from secateurs.planning.budgets import budget_of
from secateurs.planning.choose_groups import Cutting
from secateurs.planning.depth import BlockCosts, choose_blocks, find_removable, frozen_blocks, score_blocks
from secateurs.planning.group_scores import Scoring
from secateurs.planning.groups import GroupEntry, GroupPlan
from secateurs.recipe import AMOUNTS, Recipe
from secateurs.train.group_statistics import GroupStatistics
from secateurs.train.losses import Loss, default_loss
from secateurs.train.structured import PrunedGroups, needed, settled_structures, take_batches

__all__ = ["cut_layers", "plan_layers", "regrow_layers"]


def plan_layers(model: nn.Module, said: Recipe, example: Any, calibration: Iterable[Any] | None = None,
                loss: Loss | None = None) -> GroupPlan:  # fmt: skip
    """Which repeated blocks would go. Where the recipe names no amount, those that ``include`` names do.

    Raises:
        BadInput: the model has no repeated blocks, a named one must stay, or whatever else cannot work.
    """
    recipe, method = settled_structures(said)
    for name in ("round_to", "steps", "normalize"):
        if getattr(recipe, name) is not None:
            raise BadInput(f"{name}={getattr(recipe, name)!r} means nothing for whole layers")
    named = bool(recipe.include) and all(getattr(recipe, name) is None for name in AMOUNTS)
    budget = None if named else budget_of(recipe)
    criterion = method.criterion(recipe.criterion or "magnitude")
    scoring = Scoring(criterion, recipe.aggregate or "sum", "none", recipe.power, seed=recipe.seed)
    cutting = Cutting(recipe.scope or "local", 1, 1 if recipe.least is None else recipe.least)
    batches = take_batches(calibration, criterion, recipe.seed)
    inner = unwrap(model)
    lists = find_removable(inner, needed(example))
    weights = {weight.name: weight.parameter for weight in survey(inner).weights}
    supply = GroupStatistics(inner, criterion.needs, weights, batches, loss or default_loss, recipe.seed)
    scores, costs = score_blocks(lists, scoring, supply, inner), BlockCosts(inner, lists, example)
    left = choose_blocks(lists, scores, (recipe.include, recipe.exclude), cutting, budget, costs)
    entries = tuple(GroupEntry(b.path, "layers", len(b.modules), len(left.get(b.path, b.modules)),
                               tuple(map(b.name, range(len(b.modules))))) for b in lists)  # fmt: skip
    keeps = {path: torch.tensor(kept) for path, kept in left.items()}
    return GroupPlan(entries, keeps, costs({}), costs(left), frozen_blocks(lists), recipe.to_dict())


def cut_layers(model: nn.Module, planned: GroupPlan, recipe: Recipe, example: Any, inplace: bool) -> PrunedGroups:
    """Carry a plan of layers out.

    Raises:
        BadInput: the plan is not one for this model.
        BrokenPromise: the smaller model does not compute what the dense one does without the blocks; nothing is changed.
    """
    inner = unwrap(model)
    smaller = shorten(inner, planned.keeps)
    verification = verify_shortened(inner, smaller, planned.keeps, needed(example)).require()
    result = smaller
    if inplace:
        inner.__dict__ = smaller.__dict__
        result = model
    return PrunedGroups(result, planned, planned.report(), recipe, verification=verification)


def regrow_layers(pruned: nn.Module, dense: nn.Module, planned: GroupPlan) -> None:
    """Write the values of ``pruned`` to where they were in ``dense``; the blocks that went keep the values ``dense`` has.

    Raises:
        BadInput: the models are not the ones of the plan; nothing is changed.
    """
    theirs, mine = unwrap(pruned).state_dict(), unwrap(dense).state_dict()
    left = {path: keep.tolist() for path, keep in planned.keeps.items()}
    pairs = {name: new for name in mine if (new := new_name(name, left)) is not None}
    for name, new in pairs.items():
        if new not in theirs or theirs[new].shape != mine[name].shape:
            raise BadInput(f"{name!r} has no {new!r} of its shape in the pruned model: not the same model")
    with torch.no_grad():
        for name, new in pairs.items():
            mine[name].copy_(theirs[new])
