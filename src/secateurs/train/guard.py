"""What must be true of a model and its optimizer while a pruner is attached, checked where it is cheap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from secateurs.errors import BadInput
from secateurs.models import Weight

__all__ = ["check_free", "check_optimizer", "check_unchanged", "claim", "innermost", "release"]

_claimed = WeakTensorKeyDictionary()  # parameter -> name of the method that holds it


def check_free(weights: Sequence[Weight]) -> None:
    """Raise :class:`BadInput` if another pruner has one of the parameters."""
    for weight in weights:
        if weight.parameter in _claimed:
            raise BadInput(f"{weight.name!r} is already being pruned by an attached {_claimed[weight.parameter]!r} pruner; "
                           "call finish() or detach() on that one, or exclude the weight here")  # fmt: skip


def claim(weights: Sequence[Weight], by: str) -> None:
    """Mark the parameters as taken."""
    for weight in weights:
        _claimed[weight.parameter] = by


def release(weights: Sequence[Weight]) -> None:
    """Undo :func:`claim`."""
    for weight in weights:
        _claimed.pop(weight.parameter, None)


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that takes the steps: a wrapper that has no step hooks of its own (Accelerate's) is taken off."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def check_optimizer(weights: Sequence[Weight], optimizer: torch.optim.Optimizer) -> None:
    """Every pruned weight must be trained by ``optimizer``.

    Raises:
        BadInput: the optimizer was built for other parameters, or it is none.
    """
    if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "register_step_post_hook"):
        raise BadInput(f"attach() got a {type(optimizer).__name__}; give it the torch optimizer that trains the model")
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [w.name for w in weights if id(w.parameter) not in trained]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BadInput(f"the optimizer does not train {', '.join(map(repr, missing[:3]))}{more} of the {len(weights)} weights "
                       "to prune: it was built for other parameters (another copy of the model?); build it from this model, or "
                       "exclude them")  # fmt: skip


def check_unchanged(model: nn.Module, weights: Sequence[Weight], masks: Mapping[str, Tensor]) -> None:
    """The parameters must be the ones the pruner was built for, of the shape of their ``masks``.

    Raises:
        BadInput: one was replaced, frozen, resized, or shared with another layer since.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for weight in weights:
        if change := _change(weight, names.get(id(weight.parameter), []), masks[weight.name]):
            raise BadInput(f"{weight.name!r} was {change}")


def _change(weight: Weight, names: list[str], mask: Tensor) -> str:
    """What has happened to ``weight`` since its pruner was built, with the remedy; empty if nothing has."""
    fix = "build the pruner after the model has its final form"
    if any(site.module._parameters.get(site.attribute) is not weight.parameter for site in weight.sites):
        return f"replaced by another parameter after the pruner was built; {fix}"
    if weight.parameter.shape != mask.shape:
        return f"resized after the pruner was built, from {tuple(mask.shape)} to {weight.shape}; {fix}"
    if not weight.parameter.requires_grad:
        return "frozen (requires_grad=False) after the pruner was built; exclude it, or unfreeze it"
    now, before = sorted(names), sorted([weight.name, *weight.aliases])
    if now != before:
        return f"shared or unshared after the pruner was built: its names were {before}, now {now}; {fix}"
    return ""
