"""How a memory budget is shared out when a model stays in its files: what there is already, blocks, and activations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from secateurs.errors import BadInput
from secateurs.measure.process import anonymous_bytes, parse_bytes

__all__ = ["as_bytes", "bytes_of", "for_activations"]


def as_bytes(memory: str | int) -> int:
    """A budget as a number of bytes, from one or from text as ``"2GB"``."""
    return parse_bytes(memory) if isinstance(memory, str) else memory


def bytes_of(module: nn.Module) -> int:
    """What the parameters of ``module`` take, or would take."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def for_activations(model: nn.Module, blocks: Sequence[str], budget: int, beside: int = 0) -> int:
    """Bytes of activations to keep in memory: half of what the process, the layers outside, a few blocks and ``beside`` leave.

    Raises:
        BadInput: not even the process as it is and the largest block fit into the budget.
    """
    sizes = [bytes_of(model.get_submodule(name)) for name in blocks]
    now, largest = anonymous_bytes() or 0, max(sizes)
    if now + largest > budget:
        raise BadInput(f"memory={budget} bytes cannot be kept: this process has {now} already, and the largest block is "
                       f"{largest}; give more than {now + largest}")  # fmt: skip
    outside = max(0, bytes_of(model) - sum(sizes))
    return max(0, (budget - now - 3 * largest - outside - beside) // 2)
