"""Which runs a family consists of: dense, sparse at every sparsity (and order), and the dense rivals of equal bytes."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.families.cost import rivals
from benchmarks.families.setting import Run
from benchmarks.families.tasks import Task

__all__ = ["runs"]


def runs(task: Task, size: str, seeds: Sequence[int]) -> list[Run]:
    """Every run of ``task``, seed by seed, the long ones (the large model) first; rivals of the same width are one run."""
    setting, found = task.setting, []
    narrow = sorted(set(rivals(task, setting.sparsities).values()) - {setting.width}, reverse=True)
    for seed in seeds:
        found.append(Run(setting, size, setting.width, seed))
        found += [Run(setting, size, setting.width, seed, s) for s in setting.sparsities]
        found += [Run(setting, size, setting.width, seed, s, order) for order, some in setting.orders.items() for s in some]
        found += [Run(setting, size, width, seed) for width in narrow]
    return found
