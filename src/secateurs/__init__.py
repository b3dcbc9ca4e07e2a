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
    from secateurs.models import declare, survey
    from secateurs.planning import Plan
    from secateurs.recipe import Recipe
    from secateurs.registry import methods
    from secateurs.train import Pruned, Pruner, prune

_WHERE = {
    "Plan": "secateurs.planning",
    "Pruned": "secateurs.train",
    "Pruner": "secateurs.train",
    "Recipe": "secateurs.recipe",
    "Verification": "secateurs.apply",
    "compare": "secateurs.comparing",
    "declare": "secateurs.models",
    "load": "secateurs.formats",
    "methods": "secateurs.registry",
    "prune": "secateurs.train",
    "save": "secateurs.formats",
    "survey": "secateurs.models",
    "verify": "secateurs.apply",
}

__all__ = [
    "Plan", "Pruned", "Pruner", "Recipe", "Verification", "__version__",
    "compare", "declare", "load", "methods", "prune", "save", "survey", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'secateurs' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
