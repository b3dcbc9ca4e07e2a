"""A survey as rows for a table."""

from __future__ import annotations

import torch

from secateurs.models.storage import storage_problem
from secateurs.models.tree import Survey, Weight

__all__ = ["inspect_rows"]


def inspect_rows(survey: Survey) -> list[dict[str, object]]:
    """One row per parameter, in the order of the model.

    Keys: ``name``, ``kind``, ``shape``, ``size``, ``zeros`` (entries that are zero now), ``sparsity`` (their share),
    ``prunable`` and ``reason``. ``kind``, ``zeros`` and ``sparsity`` are None where the parameter is left alone; a weight whose
    storage stands against pruning is not prunable either.
    """
    rows = [_weight_row(weight) for weight in survey.weights]
    rows += [
        {"name": left.name, "kind": None, "shape": list(left.shape), "size": left.size,
         "zeros": None, "sparsity": None, "prunable": False, "reason": left.reason}
        for left in survey.left
    ]  # fmt: skip
    place = {name: i for i, name in enumerate(survey.order)}
    return sorted(rows, key=lambda row: place.get(str(row["name"]), len(place)))


def _weight_row(weight: Weight) -> dict[str, object]:
    reason = storage_problem(weight.parameter)
    zeros = None if reason else weight.size - int(torch.count_nonzero(weight.parameter.detach()))
    return {"name": weight.name, "kind": weight.kind, "shape": list(weight.shape), "size": weight.size, "zeros": zeros,
            "sparsity": None if zeros is None else zeros / weight.size, "prunable": not reason, "reason": reason}  # fmt: skip
