"""Fair comparisons: many methods, tasks, operating points and seeds from one recipe, the baselines always beside them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateurs.comparing.harness import compare
    from secateurs.comparing.outcome import Outcome
    from secateurs.comparing.recipes.recipe import from_dict, read
    from secateurs.comparing.spec import Arm, Comparison, Dense, Optimizer, Point, Run, Task

_WHERE = {
    **dict.fromkeys(("Arm", "Comparison", "Dense", "Optimizer", "Point", "Run", "Task"), "spec"),
    **dict.fromkeys(("from_dict", "read"), "recipes.recipe"),
    "Outcome": "outcome",
    "compare": "harness",
}

__all__ = ["Arm", "Comparison", "Dense", "Optimizer", "Outcome", "Point", "Run", "Task", "compare", "from_dict", "read"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:  # a worker, for one, needs neither the page nor the recipe: each is loaded when it is used
        raise AttributeError(f"module 'secateurs.comparing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"secateurs.comparing.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
