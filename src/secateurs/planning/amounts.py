"""From a recipe and a model to the selected weights, the amount in every one of them, and the schedule."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn

from secateurs.core.schedules import Schedule, resolve_step
from secateurs.errors import BadInput, near
from secateurs.models import Left, Survey, Weight, check, select, survey
from secateurs.planning.decide import Choices
from secateurs.recipe import Recipe

__all__ = ["choose_weights", "make_schedule", "own_shares", "target_sparsity"]


def choose_weights(model: nn.Module, recipe: Recipe, trained: bool) -> Survey:
    """The weights a recipe selects; where the model is trained, those that are not (frozen ones) are left alone."""
    found = survey(model)
    chosen = select(found, include=recipe.include, exclude=recipe.exclude, types=recipe.types, exempt=recipe.exempt)
    if trained:
        chosen = _without_frozen(chosen)
    check(chosen)
    return chosen


def _without_frozen(chosen: Survey) -> Survey:
    frozen = [w for w in chosen.weights if not w.parameter.requires_grad]
    if frozen and len(frozen) == len(chosen.weights):
        raise BadInput(f"all {len(frozen)} selected weights are frozen (requires_grad=False), {frozen[0].name!r} among them: nothing would "
                       "train under the masks; unfreeze them, or prune in one shot with sc.prune")  # fmt: skip
    left = tuple(Left(w.name, w.shape, w.size, "frozen (requires_grad=False)") for w in frozen)
    return Survey(tuple(w for w in chosen.weights if w.parameter.requires_grad), (*chosen.left, *left), chosen.order)


def target_sparsity(recipe: Recipe, choices: Choices, chosen: Survey) -> float:
    """The recipe's amount as a share of the selected weights.

    Raises:
        BadInput: no amount, two that disagree, or one out of reach with what is excluded.
    """
    fixed = choices.structure.share
    if fixed is not None:
        if recipe.sparsity is not None and abs(recipe.sparsity - fixed) > 1e-9:
            raise BadInput(f"structure={recipe.structure!r} removes {fixed:.4g} of every layer, but sparsity={recipe.sparsity}; leave sparsity out")
        return fixed
    if recipe.sparsity is not None:
        return recipe.sparsity
    if recipe.keep is not None:
        share = recipe.keep if isinstance(recipe.keep, float) else recipe.keep / chosen.size
        if not 0 < share <= 1:
            raise BadInput(f"keep={recipe.keep!r}: give a share above 0.0 and up to 1.0, or a number of the {chosen.size} selected weights")
        return 1 - share
    if recipe.total_sparsity is not None:
        share = recipe.total_sparsity * chosen.total / chosen.size
        if share >= 1:
            raise BadInput(f"total_sparsity={recipe.total_sparsity} is out of reach: only {chosen.size} of {chosen.total} parameters are selected, "
                           f"so at most {chosen.size / chosen.total:.4f} of all can go; exclude less")  # fmt: skip
        return share
    if recipe.overrides:
        return 0.0
    raise BadInput("how much? give sparsity=0.9 (share of the selected weights), keep=, or total_sparsity=")


def own_shares(recipe: Recipe, weights: Sequence[Weight]) -> dict[str, float]:
    """The overrides by weight name; of several patterns that match, the last counts.

    Raises:
        BadInput: a pattern matches no selected weight, or ``allocation="explicit"`` leaves one without a share.
    """
    own: dict[str, float] = {}
    for pattern, share in recipe.overrides.items():
        hits = [w.name for w in weights if any(fnmatch.fnmatchcase(n, pattern) for n in (w.name, *w.aliases, *(s.path for s in w.sites)))]
        if not hits:
            raise BadInput(f"overrides: {pattern!r} matches none of the selected weights" + near(pattern, [w.name for w in weights]))
        own |= dict.fromkeys(hits, share)
    missing = [w.name for w in weights if w.name not in own]
    if recipe.allocation == "explicit" and missing:
        raise BadInput(f"allocation='explicit' needs a share for every weight, but {missing[0]!r} has none ({len(missing)} in all); add it to overrides")
    return own


def make_schedule(recipe: Recipe, final: float) -> Schedule:
    """The recipe's schedule in steps; what it leaves out is: begin at 0, end with training (one-shot: at begin), every step."""
    curve = recipe.schedule or "cubic"
    begin = resolve_step(0 if recipe.begin is None else recipe.begin, recipe.total_steps, "begin")
    if recipe.end is None and curve != "one-shot" and recipe.total_steps is None:
        raise BadInput(f"schedule={curve!r} needs an end: give end= as a step, or total_steps= (and end as a share of it)")
    end = resolve_step(recipe.end if recipe.end is not None else begin if curve == "one-shot" else 1.0, recipe.total_steps, "end")
    if begin > end:
        raise BadInput(f"begin={recipe.begin!r} (step {begin}) is after end={recipe.end!r} (step {end})")
    return Schedule(final, begin, end, recipe.every or 1, curve, recipe.initial_sparsity)
