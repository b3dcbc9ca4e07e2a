"""Which methods can be carried out in rounds, with what settings, and how only survivors are ranked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from secateurs.core.criteria import Criterion
from secateurs.core.in_rounds import InRounds
from secateurs.core.method import Method
from secateurs.errors import BadInput
from secateurs.planning import Choices
from secateurs.recipe import AMOUNTS, Recipe
from secateurs.registry import find_method

__all__ = ["check_amounts", "compares", "finds_amount", "method_in_rounds", "of_survivors"]

_GONE = -2.0  # scores of survivors are not negative, those of their zeros not below -1
_INSIDE_TRAINING = ("schedule", "begin", "end", "every", "enforcement")


def method_in_rounds(recipe: Recipe) -> Method:
    """The recipe's method, ready to be carried out in rounds.

    Raises:
        BadInput: it cannot be: it prunes inside one training, goes block by block, or removes structures; or a setting is for
            such methods.
    """
    method = find_method(recipe.method)(recipe.options)
    for what, why in (("training", "prunes inside one training: use secateurs.Pruner"),
                      ("calibration", "goes through a trained model block by block: use secateurs.prune")):  # fmt: skip
        if what in method.needs:
            raise BadInput(f"{recipe.method!r} {why}; in rounds there are lottery, lottery-rewind, sap, ap, and the one-shot "
                           "methods")  # fmt: skip
    if method.compensates:
        raise BadInput(f"{recipe.method!r} changes what stays when it prunes, and rounds keep its choice alone: prune once "
                       "with secateurs.prune, or while training with secateurs.Pruner")  # fmt: skip
    if odd := [key for key in _INSIDE_TRAINING if getattr(recipe, key) is not None]:
        raise BadInput(f"{odd[0]}={getattr(recipe, odd[0])!r} is for methods that prune inside one training; rounds= says how "
                       "often is pruned here")  # fmt: skip
    if isinstance(method, InRounds):
        method.in_rounds = True
    return method


def check_amounts(recipe: Recipe, method: Method, choices: Choices, rounds: int, strategy: int) -> None:
    """Raise :class:`BadInput` for a number of rounds, a strategy or an amount that cannot work."""
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise BadInput(f"rounds={rounds!r}: give a whole number of cuts, at least 1")
    if strategy not in (1, 2):
        raise BadInput(f"strategy={strategy!r}: 1 goes back in every round, 2 only before the last training")
    if choices.structure.share is not None and rounds > 1:
        raise BadInput(f"structure={recipe.structure!r} removes its share at once; give rounds=1")
    said = [name for name in AMOUNTS if getattr(recipe, name) is not None] + (["overrides"] if recipe.overrides else [])
    if said and finds_amount(method):
        raise BadInput(f"{recipe.method!r} finds how much goes from the weights themselves, so {said[0]}="
                       f"{getattr(recipe, said[0])!r} cannot be promised: leave it out ({', '.join(method.options)} steer the "
                       "amount, rounds= ends it)")  # fmt: skip


def finds_amount(method: Method) -> bool:
    """Whether the method derives from the weights how much goes."""
    return isinstance(method, InRounds) and method.finds_amount


def compares(method: Method) -> bool:
    """Whether the method is given the values that every round began with."""
    return isinstance(method, InRounds) and method.compares


def of_survivors(choices: Choices) -> Choices:
    """The same choices, with what is already gone below every survivor."""
    base = choices.criterion

    def score(weight: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        scores = base.score(weight, statistics)
        return torch.where(statistics["survives"], scores, torch.full_like(scores, _GONE))

    survivors: Callable[[Tensor, Mapping[str, Tensor]], Tensor] = score
    return dataclasses.replace(choices, criterion=Criterion(base.name, base.needs | {"survives"}, survivors))
