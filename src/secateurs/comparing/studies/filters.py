"""Filters as rows: the output rows of a layer's weight, and the one-dimensional parameters that go with each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from secateurs.comparing.studies.sets import Choice, Kept
from secateurs.core.count import removed_count
from secateurs.core.masks import Masks
from secateurs.errors import BadInput, near
from secateurs.models import Weight, matching, survey
from secateurs.planning import Entry, Plan

__all__ = ["Filters", "Layers", "find_filters", "plan_of"]


@dataclass(frozen=True)
class Layers:
    """Layers as a recipe names them, before there is a model."""

    weight: str
    """A name or glob of prunable weights, whose output rows are the filters."""
    beside: tuple[str, ...] = ()
    """``with`` in a recipe: names or globs of one-dimensional parameters with an entry for every row, as the norm behind the
    layer has. A removed row takes its entries along, so that the filter's output is exactly zero behind the norm. The layer's
    own bias goes without saying."""


@dataclass(frozen=True)
class Filters:
    """One layer: its weight's name, which dimension its rows are, how many, and what goes with them."""

    weight: str
    kind: str
    shape: tuple[int, ...]
    dim: int
    beside: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Filters of the dense layer."""
        return self.shape[self.dim]

    def choice(self, ratio: float) -> Choice:
        """The choice of what stays when ``ratio`` of the rows goes, rounded as everywhere: half up, one row at least stays.

        Raises:
            BadInput: that removes no row.
        """
        removed = removed_count(self.rows, ratio)
        if not removed:
            raise BadInput(f"ratio={ratio} removes none of the {self.rows} filters of {self.weight!r}: nothing to choose")
        return self.keeping(self.rows - removed)

    def keeping(self, rows: int) -> Choice:
        """The choice of so many rows."""
        return Choice(self.rows, rows)


def find_filters(model: nn.Module, layers: Sequence[Layers]) -> tuple[Filters, ...]:
    """The layers that ``layers`` name in ``model``, in the order said.

    Where one glob names several weights, each takes of ``with`` what lies beside it: under the same module as the layer.

    Raises:
        BadInput: a name that matches nothing or nothing prunable; a layer named twice; what ``with`` names has not one entry
            for every row.
    """
    found, everything = survey(model), dict(model.named_parameters(remove_duplicate=False))
    filters: list[Filters] = []
    for entry in layers:
        weights = matching(found, entry.weight, "layers")
        beside = _beside(entry, weights, everything)
        for weight in weights:
            if any(weight.name == other.weight for other in filters):
                raise BadInput(f"layers: {weight.name!r} is named twice")
            filters.append(_filters(weight, beside[weight.name], everything))
    return tuple(filters)


def plan_of(filters: Sequence[Filters], kept: Kept) -> Plan:
    """The plan that zeroes every row which is not kept, with the entries that go with it."""
    masks: dict[str, Tensor] = {}
    kinds: dict[str, str] = {}
    for layer, rows in zip(filters, kept, strict=True):
        stays = torch.zeros(layer.rows, dtype=torch.bool)
        stays[list(rows)] = True
        shape = [-1 if dim == layer.dim else 1 for dim in range(len(layer.shape))]
        masks[layer.weight] = stays.view(shape).expand(layer.shape).clone()
        masks |= {name: stays.clone() for name in layer.beside}
        kinds |= {layer.weight: layer.kind, **dict.fromkeys(layer.beside, "vector")}
    entries = (Entry(n, kinds[n], "rows", tuple(m.shape), m.numel(), int((~m).sum())) for n, m in masks.items())
    return Plan(tuple(entries), Masks(masks))


def _filters(weight: Weight, beside: Iterable[str], everything: Mapping[str, nn.Parameter]) -> Filters:
    rows = weight.shape[weight.layout.out_dim]
    path = weight.name.rpartition(".")[0]
    bias = f"{path}.bias" if path else "bias"
    names = tuple(dict.fromkeys([*([bias] if bias in everything else []), *beside]))
    for name in names:
        if tuple(everything[name].shape) != (rows,):
            raise BadInput(f"with: {name!r} has shape {tuple(everything[name].shape)}, so its entries do not go with the "
                           f"{rows} filters of {weight.name!r}")  # fmt: skip
    return Filters(weight.name, weight.kind, weight.shape, weight.layout.out_dim, names)


def _beside(entry: Layers, weights: Sequence[Weight], everything: Mapping[str, nn.Parameter]) -> dict[str, list[str]]:
    """What ``with`` names, by the weight it goes with."""
    found: dict[str, list[str]] = {weight.name: [] for weight in weights}
    for pattern in entry.beside:
        names = [name for name in everything if fnmatchcase(name, pattern)]
        if not names:
            raise BadInput(f"with: {pattern!r} matches no parameter{near(pattern, everything)}")
        for name in names:
            owners = [w.name for w in weights if len(weights) == 1 or _block(w.name) == _block(name)]
            if len(owners) != 1:
                raise BadInput(f"with: {name!r} lies beside {len(owners)} of the layers that {entry.weight!r} names; name each "
                               "layer by itself, with what goes with it")  # fmt: skip
            found[owners[0]].append(name)
    return found


def _block(name: str) -> str:
    """The module that holds the layer that holds the parameter: ``blocks.0`` of ``blocks.0.conv1.weight``."""
    return name.rpartition(".")[0].rpartition(".")[0]
