"""One ranking of weights in use: in several steps where the method wants them, and with what stays changed where it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from secateurs.core.masks import Masks
from secateurs.core.method import Method
from secateurs.models import Weight
from secateurs.planning import Choices, Supply, decide

__all__ = ["rank"]


def rank(
    weights: Sequence[Weight],
    choices: Choices,
    sparsity: float,
    own: Mapping[str, float],
    known: Callable[[Masks], Supply],
    masks: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Masks by name with ``sparsity`` removed from ``weights``, which are masked by ``masks`` so far.

    Where the method compensates, the weights themselves have new values afterwards, zero where they are masked; if it fails,
    their old ones.

    Args:
        weights: ranked together.
        choices: what the recipe's words stand for.
        sparsity: in the end.
        own: single weights' own shares.
        known: the statistics under masks that are in force.
        masks: these, by name.
    """
    method, now = choices.method, Masks({w.name: masks[w.name] for w in weights})
    path = method.path(now.sparsity, sparsity)
    own_paths = {name: method.path(Masks({name: now[name]}).sparsity, share) for name, share in own.items() if name in now}
    saved = [w.parameter.detach().clone() for w in weights] if method.compensates or len(path) > 1 else []
    try:
        for i, share in enumerate(path):
            supply = known(now)
            found = decide(weights, choices, share, {name: shares[i] for name, shares in own_paths.items()}, supply)
            if saved:
                _carry_out(weights, found, method, supply)
            now = Masks(found)
    except Exception:
        with torch.no_grad():
            for weight, values in zip(weights, saved, strict=bool(saved)):
                weight.parameter.copy_(values)
        raise
    return dict(now)


@torch.no_grad()
def _carry_out(weights: Sequence[Weight], masks: Mapping[str, Tensor], method: Method, supply: Supply) -> None:
    """Write what the method makes of the weights that stay, and zeros."""
    by_name = {weight.name: weight for weight in weights}
    values = {name: weight.parameter.detach() for name, weight in by_name.items()}
    new = method.compensate(values, masks, lambda name: supply(by_name[name]))
    for name, value in values.items():
        value.copy_(torch.where(masks[name], new.get(name, value), torch.zeros_like(value)))
