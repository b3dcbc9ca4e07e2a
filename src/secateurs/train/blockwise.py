"""One shot with calibration data: block by block, each measured dense behind its pruned predecessors, pruned, and passed on."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.layer import Layer
from secateurs.core.masks import Packed
from secateurs.core.structures import Element, PerRow
from secateurs.errors import BadInput, BrokenPromise
from secateurs.formats.folder import full_disk_told
from secateurs.models import Left, Survey, Weight, broadcast, from_matrices, matrices
from secateurs.planning import Choices, Supply
from secateurs.train.block_masks import BlockMasks
from secateurs.train.dense import Lazy, norms
from secateurs.train.retraining.blocks import BlockReconstruction, Retrains
from secateurs.train.walk import Block, Inputs, Ranks, find_route, walk

__all__ = ["BlockDone", "Pruning", "blockwise", "gathered", "goes_by_blocks", "within_blocks"]

_NO_TOKENS = "no calibration token reached it"


@dataclass(frozen=True)
class BlockDone:
    """A finished block, for progress: the ``number``-th of ``total``, and of its weights how many there are and have gone.

    ``error`` is the largest squared output error of its layers, as a share of the squared output; None where it is unknown.
    """

    name: str
    number: int
    total: int
    size: int
    removed: int
    error: float | None


@dataclass
class Pruning:
    """What is removed, gathered block by block.

    Attributes:
        masks: by weight name, True = kept; held as bits.
        facts: by weight name, numbers for the report.
        left: weights that were left alone, with the reason.
        rare: experts that got few of the tokens: (weight, expert, tokens).
    """

    masks: Packed = field(default_factory=lambda: Packed({}, {}))
    facts: dict[str, dict[str, float]] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    rare: list[tuple[str, int, int]] = field(default_factory=list)


def goes_by_blocks(choices: Choices) -> bool:
    """Whether a pruning by ``choices`` is a walk through the model."""
    return "calibration" in choices.method.needs or "norms" in choices.criterion.needs


def within_blocks(model: nn.Module, chosen: Survey, blocks: str | Sequence[str] = (), only: str | None = None) -> Survey:
    """The part of ``chosen`` that a walk through ``model`` reaches; the rest is left alone, with the reason.

    ``only`` is a range of blocks, ``"4:20"`` for numbers 4 to 19, of all lists together, counted from 0.

    Raises:
        BadInput: nothing of it, ``blocks`` names what is not there, or ``only`` is no range of blocks.
    """
    route = find_route(model, chosen, blocks)
    if not route.weights:
        reasons = "; ".join(f"{left.name!r}: {left.reason}" for left in route.left[:3])
        raise BadInput(f"nothing to walk through: {reasons}")
    stops = route.stops if only is None else route.stops[_range(only, len(route.stops))]
    inside = {weight.name for stop in stops for weight in stop.weights}
    weights = tuple(weight for weight in chosen.weights if weight.name in inside)
    if not weights:
        raise BadInput(f"blocks {only!r} hold nothing that was chosen to be pruned")
    others = (w for w in route.weights if w.name not in inside)
    left = tuple(Left(w.name, w.shape, w.size, f"not in blocks {only}") for w in others)
    return Survey(weights, (*chosen.left, *route.left, *left), chosen.order)


def _range(only: str, total: int) -> slice:
    found = re.fullmatch(r"(\d*):(\d*)", only)
    first, last = (int(found[1] or 0), int(found[2] or total)) if found else (0, 0)
    if not 0 <= first < last <= total:
        raise BadInput(f"only_blocks={only!r}: give a range of the {total} blocks, as '0:{total}'; the last is not in it")
    return slice(first, last)


def blockwise(
    model: nn.Module, chosen: Survey, choices: Choices, counts: Mapping[str, int], supply: Supply, batches: Iterable[Any],
    *, state: str | Path | None = None, progress: Callable[[BlockDone], None] | None = None, ranks: Ranks | None = None,
    **walking: Any,
) -> Pruning:  # fmt: skip
    """Prune ``chosen`` of ``model`` in place by ``choices``, removing ``counts`` units of every weight.

    ``supply`` gives what the criterion needs besides the norms; ``walking`` are arguments of
    :func:`secateurs.train.walk.walk`, ``state`` its folder, ``ranks`` the processes that go through it together.

    Raises:
        BadInput, NotFinite, NotPositiveDefinite: a layer cannot be pruned; those before it are.
    """
    wants = choices.method.measures if "gram" in choices.method.measures else (*choices.method.measures, "norms")
    masks = BlockMasks(None if state is None else Path(state), ranks)
    visit = _Visit(choices, counts, supply, masks, _reconstruction(choices, walking.get("seed", 0)))
    told = None if progress is None else _Telling(visit.facts, progress)
    with full_disk_told(state):
        walked = walk(model, chosen, batches, wants, visit, state=state, progress=told, ranks=ranks, **walking)
    done = gathered(walked.facts, visit.facts, masks, chosen)
    done.left += [left for left in walked.left if left.name in counts]
    return done


def _reconstruction(choices: Choices, seed: int) -> BlockReconstruction | None:
    """What is done with a pruned block, where the method wants something done."""
    wanted = choices.method.block_retraining() if isinstance(choices.method, Retrains) else None
    return None if wanted is None else BlockReconstruction(wanted, seed)


class _Visit:
    """Prunes a block, one weight after the other, and has it reconstructed where that is wanted."""

    def __init__(self, choices: Choices, counts: Mapping[str, int], supply: Supply, masks: BlockMasks,
                 reconstruction: BlockReconstruction | None):  # fmt: skip
        self._choices, self._counts, self._supply, self._masks = choices, counts, supply, masks
        self._reconstruction = reconstruction
        self.facts: dict[str, dict[str, Any]] = {}

    def __call__(self, block: Block) -> dict[str, Any]:
        """What is to be known of the block, as JSON-able data."""
        layers: dict[str, dict[str, float]] = {}
        left: dict[str, str] = {}
        shared: dict[int, _Measured] = {}
        masks: dict[str, Tensor] = {}
        if self._reconstruction is not None:
            self._reconstruction.look(block)
        for weight in block.weights:
            reason = _unreached(weight, block)
            if reason:
                left[weight.name] = reason
                continue
            inputs = block.statistics[weight.name]
            measured = shared.setdefault(id(inputs), _Measured(inputs))
            masks[weight.name], facts = self._prune(weight, measured)
            kept = int(torch.count_nonzero(masks[weight.name]))
            layers[weight.name] = {"size": weight.size, "removed": weight.size - kept, **facts}
        if self._reconstruction is not None:
            errors = self._reconstruction.fit(block, masks)
            layers = {name: {**row, **errors} for name, row in layers.items()}
        found = _joined(block.ranks.gather({"layers": layers, "left": left, "rare": [list(row) for row in block.rare()]}))
        found["masks"] = self._masks.keep(block.index, masks)
        self.facts[block.name] = found
        return found

    def _prune(self, weight: Weight, measured: _Measured) -> tuple[Tensor, Mapping[str, float]]:
        layer = self._layer(weight, measured)
        solved = self._choices.method.solve(layer)
        mask = from_matrices(weight, solved.kept)
        removed = weight.size - int(torch.count_nonzero(mask))
        if isinstance(layer.structure, (Element, PerRow)) and removed != layer.remove:
            raise BrokenPromise(f"{layer.remove} of {weight.name!r} were to go, {removed} have: {weight.name!r} is not changed")
        if solved.values is not None:
            weight.parameter.copy_(from_matrices(weight, solved.values))
        weight.parameter.masked_fill_(~mask, 0)
        return mask.cpu(), solved.facts

    def _layer(self, weight: Weight, measured: _Measured) -> Layer:
        count, layout = self._counts[weight.name], weight.layout

        def supply(weight: Weight) -> Lazy:
            found = self._supply(weight)
            makers = {name: (lambda name=name: found[name]) for name in found}
            return Lazy(makers | {"norms": lambda: broadcast(weight, measured.norms)})

        return Layer(
            name=weight.name,
            matrices=matrices(weight),
            remove=count,
            structure=self._choices.structure,
            measured=measured.grams,
            kept=lambda: matrices(weight, self._choices.mask(weight, count, supply)),
            shared=measured.memo,
            taps=weight.parameter[(0,) * (max(layout.out_dim, layout.in_dim) + 1)].numel(),
        )


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of a block from those of its weights that each process has pruned."""
    by_name = {key: {name: row for part in parts for name, row in part[key].items()} for key in ("layers", "left")}
    return {**by_name, "rare": [row for part in parts for row in part["rare"]]}


class _Measured:
    """What was measured of an input, for all the weights that read it."""

    def __init__(self, inputs: Inputs):
        self.norms = norms(inputs)  # before a solver takes the Gram matrix's memory
        self.grams = {"gram": tuple(one.gram for one in inputs["gram"])} if "gram" in inputs else {}  # type: ignore[attr-defined]
        self.memo: dict[str, Any] = {}


class _Telling:
    """Progress of the walk as progress of the pruning."""

    def __init__(self, visited: Mapping[str, Mapping[str, Any]], tell: Callable[[BlockDone], None]):
        self._visited, self._tell = visited, tell

    def __call__(self, number: int, total: int, name: str) -> None:
        """A block is finished; one that an earlier run has finished has nothing to tell of its layers."""
        layers = self._visited.get(name, {}).get("layers", {}).values()
        errors = [row["error"] for row in layers if "error" in row]
        sizes, gone = (sum(int(row[key]) for row in layers) for key in ("size", "removed"))
        self._tell(BlockDone(name, number, total, sizes, gone, max(errors, default=None)))


def _unreached(weight: Weight, block: Block) -> str:
    """Why there is nothing to judge the weight by; empty where there is something."""
    if weight.name in block.unseen:
        return _NO_TOKENS
    unused = [i for i, tokens in enumerate(block.statistics[weight.name].tokens) if not tokens]
    return f"no calibration token reached its experts {', '.join(map(str, unused))}" if unused else ""


def gathered(
    facts: Mapping[str, Mapping[str, Any]], pruned: Collection[str], masks: BlockMasks, chosen: Survey
) -> Pruning:
    """Everything by weight, from the ``facts`` of the blocks: those ``pruned`` in this run and those of earlier ones."""
    by_name = {weight.name: weight for weight in chosen.weights}
    shapes = {name: weight.shape for name, weight in by_name.items()}
    found = Pruning()
    for index, (name, block) in enumerate(facts.items()):
        if block and name not in pruned:
            masks.take_over(index, block, shapes)
        for layer, row in block.get("layers", {}).items():
            found.facts[layer] = {key: value for key, value in row.items() if key not in ("size", "removed")}
        found.left += [Left(n, shapes[n], by_name[n].size, why) for n, why in block.get("left", {}).items()]
        found.rare += [(weight, expert, tokens) for weight, expert, tokens in block.get("rare", [])]
    found.masks = masks.packed(shapes)
    return found
