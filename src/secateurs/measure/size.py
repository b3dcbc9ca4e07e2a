"""How large a model is: entries, non-zeros, payload bytes, and the accounting of the gradual-pruning paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from secateurs.core.count import paper_bytes
from secateurs.errors import BadInput

__all__ = ["Sizes", "narrowest", "paper_bytes", "payload_bytes", "sizes", "stored_bytes"]

Width = TypeVar("Width", int, float)


@dataclass(frozen=True)
class Sizes:
    """Counts of one model. Tied and shared tensors count once."""

    parameters: int
    """Entries of all parameters: weights, biases and norms, prunable or not."""
    nonzero: int
    """Parameter entries whose value is not zero (minus zero is zero)."""
    parameter_bytes: int
    """Bytes of the parameters, stored dense."""
    buffer_bytes: int
    """Bytes of the buffers a state dict holds (running statistics and counters), stored dense."""

    @property
    def dense_bytes(self) -> int:
        """The dense payload: every tensor of the state dict, once."""
        return self.parameter_bytes + self.buffer_bytes

    @property
    def paper_bytes(self) -> float:
        """:func:`paper_bytes` of the whole model."""
        return paper_bytes(self.parameters, self.nonzero)

    @property
    def sparsity(self) -> float:
        """Share of all parameter entries that are zero; 0.0 for a model without parameters."""
        return 1 - self.nonzero / self.parameters if self.parameters else 0.0

    @property
    def compression_ratio(self) -> float:
        """All parameter entries over the non-zero ones, as ShrinkBench counts it (Blalock et al. 2020); infinite for none."""
        return self.parameters / self.nonzero if self.nonzero else math.inf


def sizes(model: nn.Module) -> Sizes:
    """Count ``model``.

    Values are read as the layers see them, so a weight that is masked in the forward pass counts its masked entries as zero.

    Raises:
        BadInput: a parameter is on the meta device and has no values to count.
    """
    total = nonzero = size = 0
    for name, value in _parameters(model):
        if value.is_meta:
            raise BadInput(f"{name!r} is on the meta device and has no values: load the weights before counting them")
        total, size = total + value.numel(), size + value.nbytes
        nonzero += _nonzero(value.detach())
    return Sizes(total, nonzero, size, payload_bytes(model) - size)


def payload_bytes(model: nn.Module) -> int:
    """Bytes of the dense tensors of ``model``'s state dict, tied ones once. Works on the meta device too."""
    parameters = {id(value): value.nbytes for value in model.parameters()}
    buffers = {id(value): value.nbytes for value in _persistent_buffers(model)}
    return sum(parameters.values()) + sum(buffers.values())


def stored_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of a state dict's tensors, each dense or as one bit per entry and its non-zero values, whichever is smaller.

    A tensor with several names (a tied weight) counts once.
    """
    once = {(t.data_ptr(), t.shape) if t.numel() else name: t for name, t in state.items()}
    return sum(min(t.nbytes, (t.numel() + 7) // 8 + t.element_size() * _nonzero(t)) for t in once.values())


def narrowest(factory: Callable[[Width], nn.Module], widths: Iterable[Width], bytes: int) -> Width:
    """The dense rival of a file of ``bytes`` bytes: the narrowest of ``widths`` whose dense payload is at least as large.

    Args:
        factory: builds the dense network of one width.
        widths: the widths on offer, in any order.
        bytes: the payload to match or exceed.

    Raises:
        BadInput: no width is large enough; the message names the largest on offer.
    """
    largest = 0
    for width in sorted(widths):
        largest = max(largest, payload_bytes(factory(width)))
        if largest >= bytes:
            return width
    raise BadInput(f"no width has a payload of {bytes} bytes or more (the largest has {largest}): offer a greater width")


def _nonzero(value: Tensor) -> int:
    if value.is_floating_point() and value.dtype.itemsize == 1:
        value = value.to(torch.float32)  # torch cannot count float8
    return int(torch.count_nonzero(value))


def _parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each parameter once under its first name, with the value its module's forward reads."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{path}.{name}" if path else name), getattr(module, name)


def _persistent_buffers(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield buffer
