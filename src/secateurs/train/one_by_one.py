"""One shot without calibration, for a model whose weights stay in their files: read a block, prune it, write it, go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.models import Survey, Weight, find_blocks, survey
from secateurs.planning import Choices
from secateurs.train.block_masks import BlockMasks
from secateurs.train.blockwise import BlockDone, Pruning, gathered
from secateurs.train.walk import Source
from secateurs.train.walk.state import State, digest, own_tensors

__all__ = ["one_by_one", "stops_of"]


def stops_of(model: nn.Module, chosen: Survey) -> dict[str, list[Weight]]:
    """The chosen weights by what is read at a time: a block of the model, or a layer outside the blocks."""
    names = [name for item in find_blocks(model, survey(model)) if item.chained for name in item.names]
    found: dict[str, list[Weight]] = {}
    for weight in chosen.weights:
        path = weight.sites[0].path
        home = next((name for name in names if f"{path}.".startswith(f"{name}.")), path)
        found.setdefault(home, []).append(weight)
    return found


@torch.no_grad()
def one_by_one(
    model: nn.Module, chosen: Survey, choices: Choices, counts: Mapping[str, int], source: Source, state: Path,
    settings: Mapping[str, Any], progress: Callable[[BlockDone], None] | None = None,
) -> Pruning:  # fmt: skip
    """Prune ``chosen`` by what the weights themselves tell; ``source`` gives them, ``state`` gets them.

    Raises:
        BadInput: ``state`` belongs to another run, or to another model.
        NotFinite: a weight or a score is NaN or infinite.
    """
    stops = stops_of(model, chosen)
    identity = {"blocks": list(stops), "weights": [w.name for ws in stops.values() for w in ws], "settings": dict(settings)}
    at, masks = State(state, identity), BlockMasks(state)
    facts: dict[str, dict[str, Any]] = {}
    pruned: list[str] = []
    for index, (name, weights) in enumerate(stops.items()):
        module = model.get_submodule(name)
        source.open(name, module)
        before = digest(own_tensors(name, module).values())
        if index < len(at.finished):
            facts[name] = dict(at.check(index, name, before)["facts"])
            at.restore(index, name, module)  # what is shared with a later stop is used there
        else:
            facts[name] = _prune(index, weights, choices, counts, masks)
            pruned.append(name)
            at.save(name, module, before, facts[name])
        source.close(name, module)
        if progress is not None:
            progress(_told(name, index + 1, len(stops), facts[name] if name in pruned else {}))
    return gathered(facts, pruned, masks, chosen)


def _prune(index: int, weights: list[Weight], choices: Choices, counts: Mapping[str, int], masks: BlockMasks) -> dict[str, Any]:
    found: dict[str, Tensor] = {}
    for weight in weights:
        found[weight.name] = choices.mask(weight, counts[weight.name])
        weight.parameter.masked_fill_(~found[weight.name], 0)
    gone = {w.name: w.size - int(torch.count_nonzero(found[w.name])) for w in weights}
    layers = {weight.name: {"size": weight.size, "removed": gone[weight.name]} for weight in weights}
    return {"layers": layers, "masks": masks.keep(index, found)}


def _told(name: str, number: int, total: int, facts: Mapping[str, Any]) -> BlockDone:
    sizes, gone = (sum(row[key] for row in facts.get("layers", {}).values()) for key in ("size", "removed"))
    return BlockDone(name, number, total, sizes, gone, None)
