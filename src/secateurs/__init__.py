"""Secateurs: prune PyTorch models, and prove it.

The public names are loaded when they are first used, so ``import secateurs`` is quick and patches nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from secateurs.version import __version__

if TYPE_CHECKING:
    from secateurs.apply import Verification, verify
    from secateurs.comparing import compare
    from secateurs.formats import load, save
    from secateurs.formats.onnx import export_onnx
    from secateurs.models import declare, survey
    from secateurs.planning import GroupPlan, Plan
    from secateurs.recipe import Recipe
    from secateurs.registry import methods
    from secateurs.train import Pruned, Pruner, prune
    from secateurs.train.advice import Advice, advise
    from secateurs.train.onnx_file import PrunedOnnx, plan_onnx, prune_onnx
    from secateurs.train.retraining import Retraining
    from secateurs.train.rounds import Rounds
    from secateurs.train.snapshots import Snapshot, Snapshots
    from secateurs.train.structured import PrunedGroups, plan

_WHERE = {
    "Advice": "secateurs.train.advice",
    "GroupPlan": "secateurs.planning",
    "Plan": "secateurs.planning",
    "Pruned": "secateurs.train",
    "PrunedGroups": "secateurs.train.structured",
    "PrunedOnnx": "secateurs.train.onnx_file",
    "Pruner": "secateurs.train",
    "Recipe": "secateurs.recipe",
    "Retraining": "secateurs.train.retraining",
    "Rounds": "secateurs.train.rounds",
    "Snapshot": "secateurs.train.snapshots",
    "Snapshots": "secateurs.train.snapshots",
    "Verification": "secateurs.apply",
    "advise": "secateurs.train.advice",
    "compare": "secateurs.comparing",
    "declare": "secateurs.models",
    "export_onnx": "secateurs.formats.onnx",
    "load": "secateurs.formats",
    "methods": "secateurs.registry",
    "plan": "secateurs.train.structured",
    "plan_onnx": "secateurs.train.onnx_file",
    "prune": "secateurs.train",
    "prune_onnx": "secateurs.train.onnx_file",
    "save": "secateurs.formats",
    "survey": "secateurs.models",
    "verify": "secateurs.apply",
}

__all__ = [
    "Advice", "GroupPlan", "Plan", "Pruned", "PrunedGroups", "PrunedOnnx", "Pruner", "Recipe", "Retraining", "Rounds",
    "Snapshot", "Snapshots", "Verification", "__version__",
    "advise", "compare", "declare", "export_onnx", "load", "methods", "plan", "plan_onnx", "prune", "prune_onnx", "save",
    "survey", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'secateurs' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
