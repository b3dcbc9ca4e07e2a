"""One call: prune a trained (or a fresh) model, now."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.models import Weight, unwrap
from secateurs.planning import Choices, Plan, choose_weights, decide, own_shares, target_sparsity
from secateurs.recipe import Recipe
from secateurs.registry import find_method
from secateurs.statistics import mean_gradients

__all__ = ["Pruned", "prune"]


@dataclass(frozen=True)
class Pruned:
    """What :func:`prune` gives back: the model, the plan it followed, a report row per layer and for the total, the recipe."""

    model: nn.Module
    plan: Plan
    report: list[dict[str, object]]
    recipe: Recipe


def prune(
    model: nn.Module,
    method: str | Recipe = "magnitude",
    *,
    calibration: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    inplace: bool = False,
    **settings: Any,
) -> Pruned:
    """Prune ``model`` once by ``method``; the input is not changed unless ``inplace``.

    ``settings`` are the fields of :class:`secateurs.Recipe`. Criteria that need gradients take ``calibration`` batches and a
    ``loss(model, batch)``; the default loss is cross-entropy on ``(inputs, labels)`` pairs, or the model's own ``.loss`` on
    mappings. Frozen weights are pruned too.

    Raises:
        BadInput: the method needs a training loop, or whatever else cannot work, before anything is changed.
        NotFinite: a weight or a score is NaN or infinite.
    """
    said = Recipe.of(method, settings)
    known = find_method(said.method)(said.options)
    if "training" in known.needs:
        raise BadInput(f"{said.method!r} prunes while a model trains: use secateurs.Pruner(model, {said.method!r}, ...) in "
                       "the training loop")  # fmt: skip
    recipe = said.with_defaults(known.defaults)
    choices = Choices.of(recipe, known)
    chosen = choose_weights(unwrap(model), recipe, trained=False)
    sparsity, own = target_sparsity(recipe, choices, chosen), own_shares(recipe, chosen.weights)
    gradients = None
    if "gradient" in choices.criterion.needs:
        gradients = _gradients(model, chosen.weights, calibration, loss, recipe.seed)
    masks = decide(chosen.weights, choices, sparsity, own, gradients)
    plan = Plan.of(chosen.weights, masks, choices.structure.name, recipe.to_dict())
    target = model if inplace else copy.deepcopy(model)
    plan.replay(target, undoable=False)
    return Pruned(target, plan, plan.masks.report(), recipe)


def _gradients(
    model: nn.Module,
    weights: tuple[Weight, ...],
    calibration: Iterable[Any] | None,
    loss: Callable[[nn.Module, Any], Tensor] | None,
    seed: int,
) -> Callable[[Weight], Tensor]:
    if calibration is None:
        raise BadInput("this criterion needs gradients: pass calibration=, an iterable of batches (and loss=, unless they "
                       "are (inputs, labels) pairs)")  # fmt: skip
    found = mean_gradients(model, {w.name: w.parameter for w in weights}, calibration, loss or _default_loss, seed)
    return lambda weight: found[weight.name]


def _default_loss(model: nn.Module, batch: Any) -> Tensor:
    if isinstance(batch, Mapping):  # transformers' batches are no dicts
        return model(**batch).loss
    inputs, labels = batch
    return torch.nn.functional.cross_entropy(model(inputs), labels)
