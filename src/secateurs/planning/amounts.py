"""From a recipe and a model to the selected weights, the amount in every one of them, and the schedule."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from fractions import Fraction

from torch import nn

from secateurs.core.allocation import Global, GlobalFloor, Lamp
from secateurs.core.count import removed_count
from secateurs.core.schedules import Schedule, resolve_step
from secateurs.core.structures import Sheltered
from secateurs.errors import BadInput, near
from secateurs.models import Left, Survey, Weight, check, select, survey
from secateurs.planning.compute import by_compute, compute_share
from secateurs.planning.decide import Choices
from secateurs.recipe import Recipe

__all__ = ["choose_weights", "make_schedule", "own_shares", "target_sparsity"]


def choose_weights(model: nn.Module, recipe: Recipe, trained: bool, hollow: bool = False) -> Survey:
    """The weights a recipe selects; where the model is trained, those that are not (frozen ones) are left alone.

    They must have values, unless the model is ``hollow``: they come block by block then.
    """
    found = survey(model)
    chosen = select(found, include=recipe.include, exclude=recipe.exclude, types=recipe.types, exempt=recipe.exempt)
    if trained:
        chosen = _without_frozen(chosen)
    if not hollow:
        check(chosen)
    return chosen


def _without_frozen(chosen: Survey) -> Survey:
    frozen = [w for w in chosen.weights if not w.parameter.requires_grad]
    if frozen and len(frozen) == len(chosen.weights):
        raise BadInput(f"all {len(frozen)} selected weights are frozen (requires_grad=False), {frozen[0].name!r} among them: "
                       "nothing would train under the masks; unfreeze them, or prune in one shot with sc.prune")  # fmt: skip
    left = tuple(Left(w.name, w.shape, w.size, "frozen (requires_grad=False)") for w in frozen)
    return Survey(tuple(w for w in chosen.weights if w.parameter.requires_grad), (*chosen.left, *left), chosen.order)


def target_sparsity(recipe: Recipe, choices: Choices, chosen: Survey) -> float:
    """The recipe's amount as a share of the selected weights that have no share of their own (overrides).

    Raises:
        BadInput: no amount, two that disagree, or one out of reach with what is excluded, overridden or kept by a floor.
    """
    own = own_shares(recipe, chosen.weights)
    share = _share(recipe, choices, chosen, own)
    if isinstance(choices.structure, Sheltered) and share > choices.structure.most:
        raise BadInput(f"structure={choices.structure.name!r} lets go of at most {choices.structure.most:g} of the weights, "
                       f"and {share:g} were asked for")  # fmt: skip
    if isinstance(choices.allocation, GlobalFloor):
        free = [w for w in chosen.weights if w.name not in own]
        choices.allocation.most([choices.structure.units(w.parameter.shape, w.layout) for w in free], share)
    return share


def _share(recipe: Recipe, choices: Choices, chosen: Survey, own: Mapping[str, float]) -> float:
    if choices.structure.share is not None:
        return _fixed_share(recipe, choices.structure.share)
    if recipe.sparsity is not None:
        return recipe.sparsity
    if recipe.keep is not None:
        if not 0 < recipe.keep <= (1 if isinstance(recipe.keep, float) else chosen.size):
            raise BadInput(f"keep={recipe.keep!r}: give a share above 0.0 and up to 1.0, or a number of the {chosen.size} "
                           "selected weights")  # fmt: skip
        if isinstance(recipe.keep, float):
            return float(1 - Fraction(str(recipe.keep)))  # the decimal it prints as: 1 - 0.9 is 0.1, not 0.09999999999999998
        return _share_to_remove(chosen.size - recipe.keep, f"keep={recipe.keep}", choices, chosen, own)
    if recipe.total_sparsity is not None:
        remove = removed_count(chosen.total, recipe.total_sparsity)
        return _share_to_remove(remove, f"total_sparsity={recipe.total_sparsity}", choices, chosen, own)
    if recipe.overrides:
        return 0.0
    raise BadInput("how much? give sparsity=0.9 (share of the selected weights), keep=, or total_sparsity=")


def _fixed_share(recipe: Recipe, fixed: float) -> float:
    """The share that the structure (N:M) sets; what else is said about the amount must agree."""
    if recipe.sparsity is not None and abs(recipe.sparsity - fixed) > 1e-9:
        raise BadInput(f"structure={recipe.structure!r} removes {fixed:.4g} of every layer, but sparsity={recipe.sparsity}; "
                       "leave sparsity out")  # fmt: skip
    for name in ("keep", "total_sparsity"):
        if getattr(recipe, name) is not None:
            raise BadInput(f"structure={recipe.structure!r} removes {fixed:.4g} of every layer, whatever "
                           f"{name}={getattr(recipe, name)}; leave {name} out")  # fmt: skip
    return fixed


def _share_to_remove(remove: int, said: str, choices: Choices, chosen: Survey, own: Mapping[str, float]) -> float:
    """The share of the weights without one of their own with which ``remove`` of all the selected ones go."""
    fixed = sum(removed_count(w.size, own[w.name]) for w in chosen.weights if w.name in own)
    free = [w.size for w in chosen.weights if w.name not in own]
    must_stay = min(len(free), 1) if isinstance(choices.allocation, (Global, Lamp)) else len(free)
    if not fixed <= remove <= fixed + sum(free) - must_stay:
        raise BadInput(f"{said} is out of reach: it removes {remove} of all {chosen.total} parameters, but {chosen.size} "
                       "of them are selected, and with the overrides, and a layer keeping one, "
                       f"between {fixed} and {fixed + sum(free) - must_stay} can go")  # fmt: skip
    return (remove - fixed) / sum(free) if free else 0.0


def own_shares(recipe: Recipe, weights: Sequence[Weight]) -> dict[str, float]:
    """The overrides by weight name; of several patterns that match, the last counts.

    Raises:
        BadInput: a pattern matches no selected weight, or ``allocation="explicit"`` leaves one without a share.
    """
    own: dict[str, float] = {}
    for pattern, share in recipe.overrides.items():
        hits = [w.name for w in weights if any(fnmatch.fnmatchcase(name, pattern) for name in _handles(w))]
        if not hits:
            raise BadInput(f"overrides: {pattern!r} matches none of the selected "
                           "weights" + near(pattern, [w.name for w in weights]))  # fmt: skip
        own |= dict.fromkeys(hits, share)
    missing = [w.name for w in weights if w.name not in own]
    if recipe.allocation == "explicit" and missing:
        raise BadInput(f"allocation='explicit' needs a share for every weight, but {missing[0]!r} has none ({len(missing)} "
                       "in all); add it to overrides")  # fmt: skip
    return own


def _handles(weight: Weight) -> tuple[str, ...]:
    return (weight.name, *weight.aliases, *(site.path for site in weight.sites))


def make_schedule(recipe: Recipe, final: float) -> Schedule:
    """The recipe's schedule in steps; what it leaves out is: begin at 0, end with training (one-shot: at begin), every step.

    ``"25% of compute"`` as begin and end are where that share of the compute of ``total_steps`` is spent, with the selected
    weights at the schedule's own sparsity.
    """
    curve = recipe.schedule or "cubic"
    moved = _by_compute(recipe, Schedule(final, every=recipe.every or 1, curve=curve, initial=recipe.initial_sparsity))
    if moved is not None:
        return moved
    begin = resolve_step(0 if recipe.begin is None else recipe.begin, recipe.total_steps, "begin")
    if recipe.end is None and curve != "one-shot" and recipe.total_steps is None:
        raise BadInput(f"schedule={curve!r} needs an end: give end= as a step, or total_steps= (and end as a share of it)")
    last = begin if curve == "one-shot" else 1.0
    end = resolve_step(last if recipe.end is None else recipe.end, recipe.total_steps, "end")
    if begin > end:
        raise BadInput(f"begin={recipe.begin!r} (step {begin}) is after end={recipe.end!r} (step {end})")
    return Schedule(final, begin, end, recipe.every or 1, curve, recipe.initial_sparsity)


def _by_compute(recipe: Recipe, schedule: Schedule) -> Schedule | None:
    """``schedule`` from and to the recipe's shares of compute; None where it has none."""
    begin, end = compute_share(recipe.begin, "begin"), compute_share(recipe.end, "end")
    if begin is None and end is None:
        return None
    if begin is None or end is None:
        raise BadInput(f"begin={recipe.begin!r}, end={recipe.end!r}: give both as shares of compute, or neither")
    if recipe.total_steps is None:
        raise BadInput(f"begin={recipe.begin!r} and end={recipe.end!r} are shares of the run's compute, so total_steps is "
                       "needed too")  # fmt: skip
    return by_compute(schedule, begin, end, recipe.total_steps)
