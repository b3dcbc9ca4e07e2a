"""What a comparison does with masks: by method and amount, in rounds, shuffled, and new weights drawn to fit them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from secateurs.comparing.running.randomness import mixed
from secateurs.comparing.spec import Point
from secateurs.core.masks import Masks
from secateurs.models import Weight, survey
from secateurs.models.kinds import CONVOLUTIONS
from secateurs.planning import Plan
from secateurs.train import Held

__all__ = ["Rounds", "amount_of", "draw_to_fit", "ramped", "shuffled", "with_masks"]


def amount_of(point: Point | None) -> dict[str, float]:
    """The recipe's field for an operating point; none where the structure fixes the share.

    A compression ratio ``c`` is of the whole network, weights and biases: ``1 - 1/c`` of all parameters go (ShrinkBench,
    Blalock et al. 2020, solve the same for the share kept of the prunable ones, ``(T/c - U) / (T - U)``).
    """
    if point is None or (point.sparsity is None and point.compression is None):
        return {}
    if point.compression is not None:
        return {"total_sparsity": 1 - 1 / point.compression}
    return {"sparsity": float(point.sparsity or 0.0)}


def ramped(share: float, round_: int, rounds: int) -> float:
    """The share removed after ``round_`` of ``rounds`` (from 1): every round keeps the same share of what is left."""
    return share if round_ == rounds else 1 - (1 - share) ** (round_ / rounds)


class Rounds(Held):
    """Prunes in rounds while a model trains: once at the beginning, then after every ``steps // rounds`` steps.

    Args:
        model: what is pruned, in place.
        prune: ``(round) -> plan``, rounds counted from 1; must remove what the round before has removed.
        rounds: how many.
        steps: of training, over all rounds; the last round has what does not divide.
    """

    def __init__(self, model: nn.Module, prune: Callable[[int], Plan], rounds: int, steps: int):
        super().__init__(model, prune(1))
        self._prune, self._rounds, self._every = prune, rounds, steps // rounds

    def step(self) -> None:
        """Count one optimizer step; prune where a round is over."""
        super().step()
        done, left = divmod(self.step_count, self._every) if self._every else (0, 1)
        if left == 0 and 0 < done < self._rounds:
            self.replace(self._prune(done + 1))

    def load_state_dict(self, state: Any) -> None:
        """Continue where ``state_dict()`` was taken, with the masks of that moment."""
        masks = Masks.from_state_dict(state["masks"])
        self.replace(with_masks(self.plan(), masks))
        super().load_state_dict(state)


def with_masks(plan: Plan, masks: Masks) -> Plan:
    """``plan`` with other masks of the same targets."""
    kept = masks.kept()
    entries = tuple(dataclasses.replace(e, removed=e.size - kept[e.name]) for e in plan.entries)
    return Plan(entries, masks, plan.recipe)


def shuffled(plan: Plan, seed: int) -> Plan:
    """As many entries of every tensor, in other places: each mask permuted, drawn from ``seed`` and its number."""
    found = {}
    for i, (name, mask) in enumerate(plan.masks.items()):
        order = np.random.default_rng([seed, i, 1]).permutation(mask.numel())
        found[name] = mask.reshape(-1)[torch.from_numpy(order)].reshape(mask.shape)
    return with_masks(plan, Masks(found))


@torch.no_grad()
def draw_to_fit(model: nn.Module, plan: Plan, seed: int) -> None:
    """New values for every weight that ``plan`` masks, drawn so that activations keep their size; zeros where it is masked.

    He's normal distribution N(0, sqrt(2 / n)) with the fan that survives (Liu et al. 2019, Rethinking the Value of Network
    Pruning, weight-level experiments): for a convolution n = entries left / input channels, the share left of
    kernel x outputs; for a linear layer n = entries left / outputs, the mean of the inputs left. So the variance of a masked
    layer's output on inputs of unit variance is that of the dense layer under the dense fan. Weights of other kinds
    (embeddings, recurrent ones) keep the values of the model's own initialisation, times sqrt(entries / entries left),
    which does the same for them.
    """
    known = {weight.name: weight for weight in survey(model).weights}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for i, (name, kept) in enumerate(plan.masks.kept().items()):
        parameter, mask = parameters[name], plan.masks[name]
        fan = _fan(known[name], kept) if name in known else None
        if fan:
            generator = torch.Generator().manual_seed(mixed(seed, i, 2))
            values = torch.randn(parameter.shape, generator=generator) * math.sqrt(2 / fan)
            parameter.copy_(values)
        elif kept and parameter.dim() > 1:
            parameter.mul_(math.sqrt(parameter.numel() / kept))
        parameter.masked_fill_(~mask.to(parameter.device), 0)


def _fan(weight: Weight, kept: int) -> float | None:
    """The ``n`` of He's distribution over the ``kept`` entries; None for a kind that it is not meant for, or an empty layer."""
    if weight.kind in CONVOLUTIONS:
        channels = getattr(weight.sites[0].module, "in_channels", weight.shape[weight.layout.in_dim])
        return kept / int(channels)
    return kept / weight.shape[weight.layout.out_dim] if weight.kind == "linear" else None
