"""Secateurs on one architecture: 30 % of a class of groups with at least a tenth of the parameters goes, and is verified."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import prod
from typing import Any

from torch import nn

import secateurs as sc
from benchmarks.coverage.apart import Row, one_line
from benchmarks.coverage.architectures import listed
from benchmarks.coverage.entry import Entry
from secateurs.errors import BadInput, SecateursError
from secateurs.graph import trace
from secateurs.graph.groups import Group

__all__ = ["classes", "measure"]

RATIO, LEAST = 0.3, 0.1


def measure(name: str) -> Row:
    """The row of one architecture: ``status`` done or failed, what went, or the reason and whether it is a refusal.

    A refusal is an error that the library raises on purpose, or that no class of groups is large enough; anything else that
    is raised is a defect.
    """
    entry = next(entry for entry in listed() if entry.name == name)
    row: Row = {"run": name, "tool": f"secateurs {sc.__version__}", "ratio": RATIO}
    began = time.process_time()
    try:
        row |= {"status": "done", **_pruned(entry)}
    except Exception as error:
        row |= {"status": "failed", "reason": one_line(error), "is_refusal": isinstance(error, SecateursError)}
    return {**row, "seconds": round(time.process_time() - began, 2)}


def classes(model: nn.Module, groups: Iterable[Group]) -> dict[str, float]:
    """The share of the model's parameters that every kind of prunable group holds, greatest first."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}
    total = sum(tensor.numel() for tensor in model.parameters())
    held: dict[str, dict[str, float]] = {}
    for group in groups:
        for part in group.slices:
            if part.tensor in shapes:
                shape = shapes[part.tensor]
                size = part.index.numel() * prod(shape) / shape[part.dim]
                kind = held.setdefault(group.kind, {})
                kind[part.tensor] = min(prod(shape), kind.get(part.tensor, 0) + size)  # a weight's entry may lie in two groups
    shares = {kind: sum(sizes.values()) / total for kind, sizes in held.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _pruned(entry: Entry) -> dict[str, Any]:
    """Prune the greatest class of groups that can be; what refused before it is told with the reason.

    Raises:
        BadInput: no class of groups holds a tenth of the parameters, or all refused.
        Exception: whatever is no refusal of the library's.
    """
    model = entry.build()
    example = entry.example(model)
    shares = classes(model, trace(model, example).prunable())
    kinds = [kind for kind, share in shares.items() if share >= LEAST and kind in (entry.structures or shares)]
    refused: dict[str, str] = {}
    for kind in kinds:
        try:
            done = sc.prune(model, "magnitude", structures=[kind], example=example, ratio=RATIO)
        except SecateursError as error:
            refused[kind] = one_line(error)
            continue
        before, after = (sum(p.numel() for p in m.parameters()) for m in (model, done.model))
        return {"structure": kind, "share": round(shares[kind], 4), "removed": round(1 - after / before, 4), "refused": refused,
                "exported": done.is_exported}  # fmt: skip
    found = ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items()) or "none"
    raise BadInput("; ".join(f"{kind}: {reason}" for kind, reason in refused.items())
                   or f"no class of groups holds {LEAST:.0%} of the parameters: {found}")  # fmt: skip
