"""Counting below the modules: every operator that reaches PyTorch's dispatcher, and those nobody has a formula for."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Unknown", "operator_counter"]

_HEAVY = re.compile(r"(?:^|_)(?:\w*mm|\w*mv|v?dot|matmul|linear|conv\w*|attention|lstm|gru|rnn)(?:_|$)")


def operator_counter() -> Any:
    """PyTorch's counter of floating-point operations, with formulas for the grouped products of expert layers added."""
    from torch.utils.flop_counter import FlopCounterMode  # here, as the import costs time that most users never need

    return FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_grouped_products(), _grouped))


def _grouped_products() -> list[Any]:
    names = ((torch.ops.aten, "_grouped_mm"), (torch.ops.transformers, "grouped_mm_fallback"))
    return [getattr(space, name) for space, name in names if hasattr(space, name)]


def _grouped(tokens: Any, weight: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    """Each of ``tokens [n, in]`` meets one expert of ``weight [experts, in, out]``."""
    return 2 * tokens[-2] * tokens[-1] * weight[-1]


class Unknown(TorchDispatchMode):
    """Notes operators without a formula that look like matrix products or come from outside PyTorch.

    Enter it before the counter, so that it sees what the counter has already taken apart.
    """

    def __init__(self, counter: Any, inside: list[int]) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._known, self._inside = counter.flop_registry, inside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, name = func.namespace, func._schema.name.partition("::")[2]
        own = space in ("aten", "prim", "prims")
        if not self._inside and func._overloadpacket not in self._known and (not own or _HEAVY.search(name)):
            self.names.add(f"{space}.{name}")
        return func(*args, **(kwargs or {}))
