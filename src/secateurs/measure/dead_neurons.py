"""How often ReLU units are silent: the dead neuron rate and its two parts (Liu et al. 2022, AP)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.errors import BadInput
from secateurs.measure.mode import device_of, evaluating, to_device

__all__ = ["DeadNeurons", "dead_neurons"]

_RELUS = {torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_, nn.functional.relu6, Tensor.relu, Tensor.relu_}


@dataclass(frozen=True)
class DeadNeurons:
    """Shares of all outputs of ReLU units over all examples that are 0: ``rate = static + dynamic``.

    ``static``: outputs of units that are 0 for every example. ``dynamic``: those of units that are 0 for some only. A unit is
    an entry of a ReLU's output for one example; ``units`` counts them.
    """

    static: float
    dynamic: float
    units: int

    @property
    def rate(self) -> float:
        """The dead neuron rate."""
        return self.static + self.dynamic


def dead_neurons(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any] | None = None
) -> DeadNeurons:
    """The dead neuron rate of ``model`` over ``batches``, whose examples lie along the first dimension.

    Every call of a ReLU counts, a module's or a function's, in the order of the forward pass, which must be the same for all
    batches. The model runs in evaluation mode without gradients and is left as it was.

    Args:
        model: with ReLU units.
        batches: inputs, ``(inputs, labels)`` or mappings of named arguments.
        forward: ``(model, batch)``, where batches are called otherwise.

    Raises:
        BadInput: there is no batch, no ReLU is called, or not the same ones in all batches.
    """
    silent: list[Tensor] = []  # per call, how many examples a unit was 0 for
    examples = 0
    with evaluating(model):
        for batch in batches:
            with _Watch() as watch:
                (forward or _call)(model, to_device(batch, device_of(model)))
            zeros = watch.zeros
            if silent and [z.shape for z in zeros] != [s.shape for s in silent]:
                raise BadInput("the batches call other ReLUs, or units of other shapes: their dead neurons cannot be added up")
            silent = [s + z for s, z in zip(silent, zeros, strict=True)] if silent else zeros
            examples += watch.examples
    units = sum(s.numel() for s in silent)
    if not units:
        raise BadInput("no dead neuron rate: no batch was given, or the model calls no ReLU")
    always = sum(int((s == examples).sum()) for s in silent)
    ever = sum(int(s.sum()) for s in silent)
    return DeadNeurons(always / units, (ever - always * examples) / (units * examples), units)


def _call(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        model(**{key: value for key, value in batch.items() if key != "labels"})
    else:
        model(batch[0] if isinstance(batch, (tuple, list)) else batch)


class _Watch(TorchFunctionMode):
    """Counts the zeros that every ReLU returns, when it does: what comes next may write into them."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros: list[Tensor] = []
        self.examples = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _RELUS:
            self.zeros.append((found == 0).sum(0).cpu())
            self.examples = len(found)
        return found
