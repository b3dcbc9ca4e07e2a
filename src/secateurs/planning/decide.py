"""Put the choices together: score, group, allocate, select."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateurs.core.allocation import Allocation, Ranked, Uniform, find_allocation
from secateurs.core.count import removed_count
from secateurs.core.criteria import Criterion, find_criterion, noise
from secateurs.core.method import Method
from secateurs.core.select import check_finite
from secateurs.core.structures import Element, PerRow, Structure, parse_structure
from secateurs.errors import BadInput
from secateurs.models import Weight
from secateurs.recipe import Recipe

__all__ = ["Choices", "Supply", "count", "decide"]

#: By name, what a criterion or an allocation wants to know of a weight; computed, where that is costly, when it is looked up.
Supply = Callable[[Weight], Mapping[str, Tensor]]

_HOW = {
    "gradient": "gradients: give calibration batches and a loss, or prune while training",
    "hessian-gradient": "the Hessian times the gradient: give calibration batches and a loss to sc.prune",
    "norms": "the norms of every layer's inputs: give calibration batches to sc.prune",
    "slope": "the slope of the loss along every weight: give calibration batches to sc.prune",
}


@dataclass(frozen=True)
class Choices:
    """What the words of a recipe stand for."""

    method: Method
    structure: Structure
    criterion: Criterion
    allocation: Allocation
    allocation_name: str
    seed: int = 0

    @classmethod
    def of(cls, recipe: Recipe, method: Method) -> Choices:
        """Look up a recipe's names, which must have the method's defaults filled in.

        Raises:
            BadInput: an unknown name, or choices that do not go together.
        """
        if recipe.structures:
            raise BadInput(f"structures={list(recipe.structures)} make tensors smaller, at once and from a traced model: "
                           "sc.prune(model, ..., example=inputs) removes them")  # fmt: skip
        structure = parse_structure(recipe.structure or "element")
        criterion = method.criterion(recipe.criterion or "magnitude")
        name = recipe.allocation or "uniform"
        allocation = find_allocation(name, **recipe.allocation_options)
        if name == "per-row" and not isinstance(structure, Element):
            raise BadInput("allocation='per-row' ranks single weights inside rows; it does not go with "
                           f"structure={structure.name!r}")  # fmt: skip
        if isinstance(structure, Element) and (name == "per-row" or method.by_row):
            structure = PerRow()
        method.check(structure)
        if isinstance(allocation, Uniform) and (recipe.total_sparsity is not None or isinstance(recipe.keep, int)):
            allocation = Uniform(exact_total=True)
        if structure.share is not None and not isinstance(allocation, Uniform):
            raise BadInput(f"structure={structure.name!r} fixes the share in every layer; allocation={name!r} does not go "
                           "with it, 'uniform' does")  # fmt: skip
        return cls(method, structure, criterion, allocation, name, recipe.seed)

    def units(self, weight: Weight, supply: Supply | None) -> Tensor:
        """Scores of the weight's units, ``[groups, units]``."""
        if weight.parameter.is_meta:
            raise BadInput(f"allocation={self.allocation_name!r} compares scores of the whole dense model, which is never in "
                           "memory here: use uniform, er, erk or shares of your own, or set no memory budget")  # fmt: skip
        values = weight.parameter.detach()
        who = f"criterion={self.criterion.name!r}"
        statistics = {n: _look_up(weight, n, supply, who) for n in sorted(self.criterion.needs - {"noise"})}
        if "noise" in self.criterion.needs:
            statistics["noise"] = noise(self.seed, weight.name, values.shape, values.device)
        scores = self.criterion.score(values, statistics)
        check_finite(scores, weight.name)
        return self.structure.to_groups(scores, weight.layout)

    def mask(self, weight: Weight, remove: int, supply: Supply | None = None) -> Tensor:
        """The mask of a weight (True = kept) that ``remove`` of its units leave."""
        kept = self.method.choose(weight.name, self.units(weight, supply), remove)
        return self.structure.to_mask(kept, weight.parameter.shape, weight.layout)


def _look_up(weight: Weight, name: str, supply: Supply | None, who: str) -> Tensor:
    found = {} if supply is None else supply(weight)
    if name not in found:
        raise BadInput(f"{who} needs {_HOW.get(name, f'the statistic {name!r}: give calibration batches to sc.prune')}")
    return found[name]


@torch.no_grad()
def decide(
    weights: Sequence[Weight],
    choices: Choices,
    sparsity: float,
    own: Mapping[str, float] | None = None,
    supply: Supply | None = None,
) -> dict[str, Tensor]:
    """Masks by name (True = kept) with ``sparsity`` removed from ``weights``.

    ``own`` gives single weights (by name) a share of their own: they take no part in the allocation. ``supply`` gives the
    statistics that the criterion and the allocation need, in a shape that broadcasts to the weight's.

    Raises:
        NotFinite: a weight or a score is NaN or infinite.
        BadInput: the structure or the allocation does not fit, or there is no supply of what they need.
    """
    counts = count(weights, choices, sparsity, own, supply)
    return {weight.name: choices.mask(weight, counts[weight.name], supply) for weight in weights}


@torch.no_grad()
def count(
    weights: Sequence[Weight],
    choices: Choices,
    sparsity: float,
    own: Mapping[str, float] | None = None,
    supply: Supply | None = None,
) -> dict[str, int]:
    """How many units of every weight go, by name; arguments and errors are those of :func:`decide`."""
    own = own or {}
    for weight in weights:
        choices.structure.check(weight.name, weight.parameter.shape, weight.layout)
        if not weight.parameter.is_meta:  # what is read later is checked then
            check_finite(weight.parameter, weight.name)
    counts = _counts([w for w in weights if w.name not in own], choices, choices.allocation, sparsity, supply)
    for share in dict.fromkeys(own.values()):
        counts |= _counts([w for w in weights if own.get(w.name) == share], choices, Uniform(), share, supply)
    return counts


def _counts(
    weights: list[Weight], choices: Choices, allocation: Allocation, sparsity: float, supply: Supply | None
) -> dict[str, int]:
    """Units to remove by name, of all groups of a weight together."""
    if not weights:
        return {}
    if choices.structure.grouped and (choices.structure.share is not None or allocation == Uniform()):
        return {w.name: _alike(w, choices.structure, sparsity) for w in weights}
    ranked = [_ranked(w, choices, supply) for w in weights]
    return dict(zip([w.name for w in weights], allocation(ranked, sparsity), strict=True))


def _alike(weight: Weight, structure: Structure, sparsity: float) -> int:
    """What goes where every group of the weight loses the same rounded share."""
    groups, units = structure.to_groups(torch.empty(weight.shape, device="meta"), weight.layout).shape
    return groups * removed_count(units, sparsity)


def _ranked(weight: Weight, choices: Choices, supply: Supply | None) -> Ranked:
    shape = weight.parameter.shape
    return Ranked(
        name=weight.name,
        shape=shape,
        units=choices.structure.units(shape, weight.layout),
        scores=lambda: choices.units(weight, supply).reshape(-1),
        judged=lambda name: replace(choices, criterion=find_criterion(name)).units(weight, supply).reshape(-1),
        slope=lambda: float(_look_up(weight, "slope", supply, f"allocation={choices.allocation_name!r}")),
        group=weight.group,
        layout=weight.layout,
        unit_size=choices.structure.unit_size(shape, weight.layout),
        dtype=torch.promote_types(weight.parameter.dtype, torch.float32),
    )
