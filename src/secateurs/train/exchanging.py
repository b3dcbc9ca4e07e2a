"""Weights exchanged for dead ones while a model trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateurs.core.criteria import noise
from secateurs.core.method import Method
from secateurs.core.regrow import Regrowth, exchange
from secateurs.core.schedules import Schedule
from secateurs.core.structures import Element
from secateurs.errors import BadInput
from secateurs.models import Weight
from secateurs.planning import Choices
from secateurs.recipe import Recipe
from secateurs.train.enforcement import MaskCell
from secateurs.train.supply import gradient_of

__all__ = ["exchanged", "forget", "regrowth_of"]


def regrowth_of(recipe: Recipe, method: Method, choices: Choices, schedule: Schedule) -> Regrowth | None:
    """The method's regrowth, checked against the rest of the recipe.

    Raises:
        BadInput: it cannot work with what the recipe says.
    """
    found = method.regrowth(recipe.every or 1, recipe.total_steps)
    if found is None:
        return None
    if (recipe.enforcement or "keep") != "overwrite":
        raise BadInput(f"enforcement={recipe.enforcement!r}: {recipe.method!r} grows weights by the gradients of dead ones, "
                       "which only enforcement='overwrite' gives")  # fmt: skip
    if not isinstance(choices.structure, Element):
        raise BadInput(f"structure={choices.structure.name!r}: {recipe.method!r} exchanges single weights; leave structure out")
    if schedule.final == 0:
        raise BadInput(f"sparsity={schedule.final:g} leaves the model dense, and {recipe.method!r} has nothing to grow; give a "
                       "sparsity above 0")  # fmt: skip
    return found


@torch.no_grad()
def exchanged(
    weight: Weight, cell: MaskCell, regrowth: Regrowth, step: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The new mask of ``weight`` and what is grown in it.

    Raises:
        BadInput: growth is by gradient, and it has none.
        NotFinite: a weight or a gradient is NaN or infinite.
    """
    if regrowth.by == "random":
        growth = noise(seed + step, weight.name, weight.parameter.shape, weight.parameter.device)
    else:
        growth = gradient_of(weight).abs()
    mask = cell.on(weight.parameter.device).bool()
    count = regrowth.count(step, int(torch.count_nonzero(mask)))
    return exchange(weight.name, weight.parameter.detach(), mask, growth, count)


@torch.no_grad()
def forget(weight: Weight, optimizer: torch.optim.Optimizer | None, grown: Tensor) -> None:
    """Let ``grown`` entries begin anew: zero, and zero in all that the optimizer remembers of them (momentum, moments)."""
    weight.parameter.masked_fill_(grown, 0)
    state: Mapping[str, object] = optimizer.state.get(weight.parameter, {}) if optimizer is not None else {}
    for value in state.values():
        if isinstance(value, Tensor) and value.shape == grown.shape:
            value.masked_fill_(grown.to(value.device), 0)
