"""What a model costs in bytes as it would be stored, and how wide the dense rival of equal bytes is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.families.setting import Setting
from benchmarks.families.tasks import Task
from secateurs.core.count import removed_count
from secateurs.measure import narrowest, payload_bytes
from secateurs.models import select, survey

__all__ = ["learned", "planned_bytes", "rivals", "stored_bytes"]


def stored_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors, each dense or as one bit per entry and its non-zero values, whichever is smaller."""
    return sum(_smaller(t.numel(), int(torch.count_nonzero(t)), t.element_size()) for t in state.values())


def learned(model: nn.Module) -> tuple[int, int]:
    """How many parameters the model learns (a frozen constant is none), and how many of them are not zero."""
    values = [p for p in model.parameters() if p.requires_grad]
    return sum(p.numel() for p in values), sum(int(torch.count_nonzero(p)) for p in values)


def planned_bytes(model: nn.Module, setting: Setting, sparsity: float) -> int:
    """:func:`stored_bytes` of ``model`` pruned to ``sparsity``, by the counting rule, before anything is trained."""
    groups: dict[str, int] = {}
    for weight in select(survey(model), exclude=setting.exclude, exempt=setting.exempt).weights:
        groups[weight.group] = groups.get(weight.group, 0) + weight.parameter.numel()
    saved = sum(4 * n - _smaller(n, n - removed_count(n, sparsity), 4) for n in groups.values())
    return payload_bytes(model) - saved


def rivals(task: Task, sparsities: Sequence[float]) -> dict[float, float]:
    """For every sparsity the width of the dense rival: the narrowest with at least the bytes of the pruned large model."""
    with torch.device("meta"):
        large = task.build(task.setting.width)
        return {s: narrowest(task.build, task.widths(), planned_bytes(large, task.setting, s)) for s in sparsities}


def _smaller(n: int, nonzeros: int, each: int) -> int:
    return min(each * n, (n + 7) // 8 + each * nonzeros)
