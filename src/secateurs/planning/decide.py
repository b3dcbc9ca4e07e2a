"""Put the choices together: score, group, allocate, select."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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

__all__ = ["Choices", "decide"]

Gradients = Callable[[Weight], Tensor]


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
        structure = parse_structure(recipe.structure or "element")
        criterion = find_criterion(recipe.criterion or "magnitude")
        name = recipe.allocation or "uniform"
        allocation = find_allocation(name, **recipe.allocation_options)
        if name == "per-row":
            if not isinstance(structure, Element):
                raise BadInput("allocation='per-row' ranks single weights inside rows; it does not go with "
                               f"structure={structure.name!r}")  # fmt: skip
            structure = PerRow()
        method.check(structure)
        if isinstance(allocation, Uniform) and (recipe.total_sparsity is not None or isinstance(recipe.keep, int)):
            allocation = Uniform(exact_total=True)
        if structure.grouped and not isinstance(allocation, Uniform):
            raise BadInput(f"structure={structure.name!r} fixes the share in every layer; allocation={name!r} does not go "
                           "with it, 'uniform' does")  # fmt: skip
        return cls(method, structure, criterion, allocation, name, recipe.seed)

    def units(self, weight: Weight, gradients: Gradients | None) -> Tensor:
        """Scores of the weight's units, ``[groups, units]``."""
        values = weight.parameter.detach()
        statistics: dict[str, Tensor] = {}
        if "noise" in self.criterion.needs:
            statistics["noise"] = noise(self.seed, weight.name, values.shape, values.device)
        if "gradient" in self.criterion.needs:
            if gradients is None:
                raise BadInput(f"criterion={self.criterion.name!r} needs gradients: give calibration batches and a loss, or "
                               "prune while training")  # fmt: skip
            statistics["gradient"] = gradients(weight)
        scores = self.criterion.score(values, statistics)
        check_finite(scores, weight.name)
        return self.structure.to_groups(scores, weight.layout)


@torch.no_grad()
def decide(
    weights: Sequence[Weight],
    choices: Choices,
    sparsity: float,
    own: Mapping[str, float] | None = None,
    gradients: Gradients | None = None,
) -> dict[str, Tensor]:
    """Masks by name (True = kept) with ``sparsity`` removed from ``weights``.

    ``own`` gives single weights (by name) a share of their own: they take no part in the allocation.

    Raises:
        NotFinite: a weight or a score is NaN or infinite.
        BadInput: the structure or the allocation does not fit.
    """
    own = own or {}
    for weight in weights:
        choices.structure.check(weight.name, weight.parameter.shape, weight.layout)
        check_finite(weight.parameter, weight.name)
    counts = _counts([w for w in weights if w.name not in own], choices, choices.allocation, sparsity, gradients)
    for share in dict.fromkeys(own.values()):
        counts |= _counts([w for w in weights if own.get(w.name) == share], choices, Uniform(), share, gradients)
    masks = {}
    for weight in weights:
        kept = choices.method.choose(weight.name, choices.units(weight, gradients), counts[weight.name])
        masks[weight.name] = choices.structure.to_mask(kept, weight.parameter.shape, weight.layout)
    return masks


def _counts(
    weights: list[Weight], choices: Choices, allocation: Allocation, sparsity: float, gradients: Gradients | None
) -> dict[str, int]:
    """Units to remove by name; inside every group, where the structure has several groups in a weight."""
    if not weights:
        return {}
    if choices.structure.grouped:
        return {w.name: removed_count(choices.units(w, gradients).shape[1], sparsity) for w in weights}
    ranked = [_ranked(w, choices, gradients) for w in weights]
    return dict(zip([w.name for w in weights], allocation(ranked, sparsity), strict=True))


def _ranked(weight: Weight, choices: Choices, gradients: Gradients | None) -> Ranked:
    shape = weight.parameter.shape
    return Ranked(
        name=weight.name,
        shape=shape,
        units=choices.structure.units(shape, weight.layout),
        scores=lambda: choices.units(weight, gradients).reshape(-1),
        group=weight.group,
        layout=weight.layout,
        unit_size=choices.structure.unit_size(shape, weight.layout),
        dtype=torch.promote_types(weight.parameter.dtype, torch.float32),
    )
