"""Allocations: how much leaves from where. (ranked layers, sparsity) -> exact integer counts of units to remove.

Where layers share a total, the counts add up to it exactly.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from secateurs.core.allocation_blocks import block_of, group_scores, outlier_ratio, owl_counts, water_fill, within_groups
from secateurs.core.allocation_ratios import er_densities, first_convolution, last_linear, uniform_plus_densities
from secateurs.core.count import check_sparsity, largest_remainder, removed_count
from secateurs.core.layout import Layout
from secateurs.core.select import find_cut, tally
from secateurs.errors import BadInput, near

__all__ = ["ALLOCATIONS", "Allocation", "Borrowed", "Ecoflap", "Er", "Global", "GlobalFloor", "Lamp", "Owl", "PerLayer",
           "Ranked", "Uniform", "UniformPlus", "WaterFill", "er_densities", "find_allocation", "lamp_scores"]  # fmt: skip


@dataclass(frozen=True)
class Ranked:
    """What an allocation sees of one weight: its name, shape, number of units, and their scores when it asks."""

    name: str
    shape: torch.Size
    units: int
    scores: Callable[[], Tensor] = field(repr=False)  # [units], computed afresh at every call
    group: str = ""  # weights of one group are one ranked tensor (an LSTM layer's two matrices)
    layout: Layout = Layout()
    unit_size: int = 1
    dtype: torch.dtype = torch.float64  # in which scores of several layers are compared
    slope: Callable[[], float] | None = field(default=None, repr=False)  # of the loss along this weight, zeroth order
    judged: Callable[[str], Tensor] | None = field(default=None, repr=False)  # [units], by the criterion of this name


Allocation = Callable[[Sequence[Ranked], float], list[int]]


def split(layers: Sequence[Ranked], remove: int) -> list[int]:
    """Rank all units of ``layers`` against each other and say how many of the lowest ``remove`` lie in each.

    Ties are kept in the order of the layers, then of the index.
    """
    if remove == 0:
        return [0] * len(layers)
    dtype = functools.reduce(torch.promote_types, (layer.dtype for layer in layers))
    cut = find_cut(lambda: (layer.scores().to(dtype) for layer in layers), remove)
    ties_kept, counts = cut.ties_kept, []
    for layer in layers:
        below, ties = tally(layer.scores().to(dtype), cut.value)
        kept_here = min(ties, ties_kept)
        ties_kept -= kept_here
        counts.append(below + ties - kept_here)
    return counts


def _one_unit(layers: Sequence[Ranked], name: str) -> None:
    sizes = {layer.unit_size for layer in layers}
    if len(sizes) > 1:
        raise BadInput(f"allocation={name!r} ranks units of different layers against each other, but theirs hold "
                       f"{sorted(sizes)} weights each; use allocation='uniform' with this structure")  # fmt: skip


@dataclass(frozen=True)
class Uniform:
    """Every layer loses the same share, ``floor(s N + 1/2)`` of its own N; a layer keeps at least one entry.

    With ``exact_total`` the layers' shares are rounded together (largest remainder), so that they add up to
    ``floor(s N + 1/2)`` of all N: where a total was promised, not a share.
    """

    exact_total: bool = False

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer; the tensors of one group are ranked together and share their group's count."""
        groups: dict[str, list[int]] = {}
        for i, layer in enumerate(layers):
            groups.setdefault(layer.group or layer.name, []).append(i)
        totals = self._totals([sum(layers[i].units for i in members) for members in groups.values()], sparsity)
        counts = [0] * len(layers)
        for members, total in zip(groups.values(), totals, strict=True):
            shares = [total] if len(members) == 1 else split([layers[i] for i in members], total)
            for i, share in zip(members, shares, strict=True):
                counts[i] = share
        return counts

    def _totals(self, sizes: list[int], sparsity: float) -> list[int]:
        if not self.exact_total:
            return [removed_count(n, sparsity) for n in sizes]
        capacity = [max(n - 1, 0) for n in sizes]
        return largest_remainder([n * sparsity for n in sizes], removed_count(sum(sizes), sparsity), capacity)


@dataclass(frozen=True)
class Global:
    """One ranking over all layers; it may empty a layer (Gupta et al. 2022, plain global magnitude pruning)."""

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        _one_unit(layers, "global")
        return split(layers, removed_count(sum(layer.units for layer in layers), sparsity))


@dataclass(frozen=True)
class GlobalFloor:
    """A global ranking in which every layer keeps a minimum, against layer collapse (Gupta et al. 2022, minimum threshold).

    ``floor``: an integer is weights kept per layer, a float the same as a share of *all* ranked weights (the published 0.05 %
    is 0.0005). ``layer_floor``: besides, a share of the layer's own weights. A layer smaller than its floor stays dense.
    What the floor holds back is taken from the other layers: by ranking them anew (``"rank"``, so that they keep their global
    order), or by scaling their shares up alike until the total is met (``"proportional"``, the published rule).

    Raises:
        BadInput: the floors together keep more than the sparsity allows.
    """

    floor: int | float = 0.0005
    layer_floor: float = 0.0
    redistribute: str = "rank"

    def __post_init__(self) -> None:
        if self.redistribute not in ("rank", "proportional"):
            raise BadInput(f"redistribute={self.redistribute!r}: use 'rank' or 'proportional'")
        if self.floor < 0 or (isinstance(self.floor, float) and self.floor >= 1) or not 0 <= self.layer_floor < 1:
            raise BadInput(f"floor={self.floor!r}, layer_floor={self.layer_floor!r}: a floor is a number of weights, or a "
                           "share from 0 to 1")  # fmt: skip

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N and respect every floor."""
        _one_unit(layers, "global-floor")
        sizes = [layer.units for layer in layers]
        fill = _fill_by_rank if self.redistribute == "rank" else _fill_in_proportion
        return fill(layers, removed_count(sum(sizes), sparsity), self.most(sizes, sparsity))

    def most(self, sizes: Sequence[int], sparsity: float) -> list[int]:
        """How many weights each layer may lose; :class:`BadInput` if they are too few for ``sparsity``."""
        remove = removed_count(sum(sizes), sparsity)
        most = [n - self.kept_at_least(n, sum(sizes)) for n in sizes]
        if sum(most) < remove:
            raise BadInput(f"sparsity {sparsity} removes {remove} of {sum(sizes)} weights, but the floors keep "
                           f"{sum(sizes) - sum(most)} in {len(sizes)} layers; lower the floor or the sparsity")  # fmt: skip
        return most

    def kept_at_least(self, n: int, total: int) -> int:
        """The floor of a layer of ``n`` weights among ``total``."""
        common = self.floor if isinstance(self.floor, int) else int(total * self.floor)
        return min(n, max(common, math.ceil(n * self.layer_floor)))


def _fill_by_rank(layers: Sequence[Ranked], remove: int, most: list[int]) -> list[int]:
    """Clamp the layers that would lose more than they may, rank the others anew for the rest, until none is clamped."""
    counts, free = [0] * len(layers), list(range(len(layers)))
    while free:
        left = remove - sum(counts[i] for i in range(len(layers)) if i not in free)
        found = split([layers[i] for i in free], left)
        over = [i for i, k in zip(free, found, strict=True) if k > most[i]]
        if not over:
            for i, k in zip(free, found, strict=True):
                counts[i] = k
            return counts
        for i in over:
            counts[i] = most[i]
        free = [i for i in free if i not in over]
    return counts


def _fill_in_proportion(layers: Sequence[Ranked], remove: int, most: list[int]) -> list[int]:
    """Scale the unclamped layers' global shares by one factor, clamp, and repeat until the total is met."""
    shares: list[float] = [float(min(k, m)) for k, m in zip(split(layers, remove), most, strict=True)]
    while (gap := remove - sum(shares)) > remove * 1e-12:
        free = [i for i, k in enumerate(shares) if k < most[i]]
        # where only layers that lose nothing have room, they share by size
        base = {i: shares[i] for i in free if shares[i]} or {i: float(most[i]) for i in free}
        whole = sum(base.values())
        for i, part in base.items():
            shares[i] = min(shares[i] + gap * part / whole, float(most[i]))
    return largest_remainder(shares, remove, most)


@dataclass(frozen=True)
class Er:
    """Erdos-Renyi layer densities: thin layers stay denser. Depends on shapes alone; exact counts by largest remainder.

    With ``dense_head`` the last linear layer is dense and the others share what is left (ERK+, Liu et al. 2022).
    """

    kernel: bool = True
    dense_head: bool = False

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        _one_unit(layers, "erk-plus" if self.dense_head else "erk" if self.kernel else "er")
        shapes, layouts = [layer.shape for layer in layers], [layer.layout for layer in layers]
        head = last_linear(shapes) if self.dense_head else None
        dense = [] if head is None else [head]
        return _counts_at(layers, er_densities(shapes, 1 - sparsity, layouts, self.kernel, dense), sparsity)


@dataclass(frozen=True)
class UniformPlus:
    """Uniform densities but for a dense first convolution, and a last linear layer that keeps 20 % where all keep less.

    The published baseline "uniform+" (Gale et al. 2019; Liu et al. 2022), at the same total.
    """

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        _one_unit(layers, "uniform-plus")
        shapes, layouts = [layer.shape for layer in layers], [layer.layout for layer in layers]
        sizes = [layer.units for layer in layers]
        two = first_convolution(shapes, layouts), last_linear(shapes)
        return _counts_at(layers, uniform_plus_densities(sizes, 1 - sparsity, *two), sparsity)


def _counts_at(layers: Sequence[Ranked], densities: Sequence[float], sparsity: float) -> list[int]:
    """Counts near these densities that add up; a dense layer loses none, any other keeps at least one."""
    sizes = [layer.units for layer in layers]
    shares = [n * (1 - d) for n, d in zip(sizes, densities, strict=True)]
    room = [max(n - 1, 0) if d < 1 else 0 for n, d in zip(sizes, densities, strict=True)]
    return largest_remainder(shares, removed_count(sum(sizes), sparsity), room)


@dataclass(frozen=True)
class Borrowed:
    """The layers' counts of one ranking by another ``criterion``; which weights go is not its business (Liu et al. 2022).

    Of an untrained network: ``"taylor"`` gives the ratios of SNIP (Lee et al. 2019), ``"grasp"`` those of GraSP (Wang et al.
    2020). A layer keeps at least one weight.
    """

    criterion: str

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        return GlobalFloor(1)([_judged(layer, self.criterion) for layer in layers], sparsity)


def _judged(layer: Ranked, criterion: str) -> Ranked:
    judge = layer.judged
    if judge is None:
        raise BadInput(f"the ratios of {criterion!r} need what it judges {layer.name!r} by: give calibration batches to "
                       "sc.prune")  # fmt: skip
    return replace(layer, scores=lambda: judge(criterion))


def lamp_scores(scores: Tensor) -> Tensor:
    """``s_u^2 / sum of s_v^2 over v ranked at or above u``: layer-adaptive magnitude scores (Lee et al. 2021).

    The highest entry scores 1, so a global ranking of these empties no layer that has a non-zero weight, as long as at least
    as many weights stay as there are layers.
    """
    squared = scores.double().clamp(min=0).square()  # below zero lie the weights that are zero already
    order = torch.argsort(squared, descending=True, stable=True)
    ranked = squared[order]
    above = torch.cumsum(ranked, 0)
    values = torch.where(above > 0, ranked / above, torch.zeros_like(above))
    return torch.empty_like(values).scatter_(0, order, values)


@dataclass(frozen=True)
class Lamp:
    """A global ranking of LAMP scores (Lee et al. 2021): the layers' own scales drop out."""

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        _one_unit(layers, "lamp")
        return Global()([_relative(layer) for layer in layers], sparsity)


def _relative(layer: Ranked) -> Ranked:
    return replace(layer, scores=lambda: lamp_scores(layer.scores()), dtype=torch.float64)


@dataclass(frozen=True)
class Owl:
    """Blocks with more outliers among their scores stay denser (OWL, Yin et al. 2023); inside a block all layers lose alike.

    An outlier is a score above ``multiple`` times the mean of its block. Blocks are told apart by name
    (:func:`~secateurs.core.allocation_blocks.block_of`). Meant for scores of the unpruned model, Wanda's in the paper.
    """

    multiple: float = 5.0
    spread: float = 0.08

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        _one_unit(layers, "owl")
        blocks, sizes = [block_of(layer.name) for layer in layers], [layer.units for layer in layers]
        members = {b: [layer for layer, own in zip(layers, blocks, strict=True) if own == b] for b in blocks}
        ratios = [outlier_ratio([layer.scores() for layer in own], self.multiple) for own in members.values()]
        whole = [sum(layer.units for layer in own) for own in members.values()]
        return within_groups(owl_counts(ratios, whole, sparsity, self.spread), blocks, sizes)


@dataclass(frozen=True)
class WaterFill:
    """Blocks with higher ``scores`` stay denser (ECoFLaP, Sung et al. 2024); inside a block all layers lose alike.

    ``scores`` has one number per layer, by name, of the unpruned model; ``most`` is the largest share a block may lose, s + 0.1
    unless told; ``reduce`` makes block scores of layer scores, ``"sum"`` or ``"avg"`` (per weight).
    """

    scores: Mapping[str, float]
    most: float | None = None
    reduce: str = "sum"

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        _one_unit(layers, "water-fill")
        blocks, sizes = [block_of(layer.name) for layer in layers], [layer.units for layer in layers]
        missing = [layer.name for layer in layers if layer.name not in self.scores]
        if missing:
            raise BadInput(f"there is no score for {missing[0]!r} ({len(missing)} such layers)" + near(missing[0], self.scores))
        found = group_scores([self.scores[layer.name] for layer in layers], blocks, sizes, self.reduce)
        whole = [sum(n for n, own in zip(sizes, blocks, strict=True) if own == b) for b in dict.fromkeys(blocks)]
        return within_groups(water_fill(found, whole, sparsity, self.most), blocks, sizes)


@dataclass(frozen=True)
class Ecoflap:
    """:class:`WaterFill` of the loss's zeroth-order slopes on the unpruned model (ECoFLaP, Sung et al. 2024)."""

    most: float | None = None
    reduce: str = "sum"

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """Counts per layer that add up to ``floor(s N + 1/2)`` of all N."""
        _one_unit(layers, "ecoflap")
        slopes = {layer.name: layer.slope() for layer in layers if layer.slope is not None}
        return WaterFill(slopes, self.most, self.reduce)(layers, sparsity)


@dataclass(frozen=True)
class PerLayer:
    """Every layer loses the share given for its name, or for a pattern (``"*.mlp.*"``) it matches; the last match counts."""

    shares: Mapping[str, float]

    def __call__(self, layers: Sequence[Ranked], sparsity: float) -> list[int]:
        """``floor(s N + 1/2)`` of every layer's own N and share; ``sparsity`` is not looked at.

        Raises:
            BadInput: a layer without a share, a pattern without a layer, or a share outside [0, 1).
        """
        found: dict[str, float] = {}
        for pattern, share in self.shares.items():
            check_sparsity(share, f"the share of {pattern!r}")
            hits = [layer.name for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
            if not hits:
                raise BadInput(f"shares per layer: {pattern!r} matches no layer" + near(pattern, [m.name for m in layers]))
            found |= dict.fromkeys(hits, share)
        missing = [layer.name for layer in layers if layer.name not in found]
        if missing:
            raise BadInput(f"shares per layer: {missing[0]!r} has none ({len(missing)} such layers); '*' stands for all "
                           "others, if it comes first")  # fmt: skip
        return [removed_count(layer.units, found[layer.name]) for layer in layers]


ALLOCATIONS: dict[str, Callable[..., Allocation]] = {
    "uniform": lambda: Uniform(),
    "per-row": lambda: Uniform(),  # the same share everywhere; the ranking inside rows is the structure PerRow
    "explicit": lambda: Uniform(),  # every layer's share is given by an override
    "global": Global,
    "global-floor": GlobalFloor,
    "er": lambda: Er(kernel=False),
    "erk": lambda: Er(kernel=True),
    "erk-plus": lambda: Er(dense_head=True),
    "uniform-plus": UniformPlus,
    "snip": lambda: Borrowed("taylor"),
    "grasp": lambda: Borrowed("grasp"),
    "lamp": Lamp,
    "owl": Owl,
    "ecoflap": Ecoflap,
}


def find_allocation(name: str, **options: object) -> Allocation:
    """The allocation called ``name`` with its options; :class:`BadInput` lists the known ones."""
    if name not in ALLOCATIONS:
        raise BadInput(f"allocation={name!r} is unknown; use one of {', '.join(ALLOCATIONS)}" + near(name, ALLOCATIONS))
    known = list(inspect.signature(ALLOCATIONS[name]).parameters)
    for option in options:
        if option not in known:
            takes = f"its options are {', '.join(known)}" if known else "it has none"
            raise BadInput(f"allocation={name!r} has no option {option!r}; {takes}" + near(option, known))
    return ALLOCATIONS[name](**options)
