"""What a pruner knows of the weights it ranks: their gradients at this step, what its own data shows, what the method keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from secateurs.core.masks import Masks
from secateurs.core.method import Method
from secateurs.errors import BadInput
from secateurs.models import Survey, Weight
from secateurs.planning import Supply
from secateurs.statistics import mean_gradients
from secateurs.train.dense import Dense, Lazy
from secateurs.train.losses import Loss, default_loss

__all__ = ["Data", "Known"]

Data = Iterable[Any] | Callable[[int], Any]
"""Batches, or a function of the number of the batch (from 0) that returns it."""


class Known:
    """The statistics of a training session's weights.

    Args:
        model: as the user gave it; where it is distributed, gradients are means over the processes.
        inner: the same without its wrappers.
        chosen: the weights.
        method: which may have statistics of its own.
        data: batches, kept in memory and gone through again and again; or a function of a number.
        loss: of a batch; :func:`secateurs.train.losses.default_loss` where it is None.
        seed: of dropout and noise.
    """

    def __init__(self, model: nn.Module, inner: nn.Module, chosen: Survey, method: Method, data: Data | None,
                 loss: Loss | None, seed: int):  # fmt: skip
        self._model, self._inner, self._chosen, self._method = model, inner, chosen, method
        self._data = data if callable(data) or data is None else _batches(data)
        self._loss, self._seed = loss or default_loss, seed
        if "batches" in method.needs:
            self._batches()

    def of(self, masks: Masks) -> Supply:
        """For a ranking of weights that are masked by ``masks`` so far."""
        batches, numbered = (self._data, None) if isinstance(self._data, list) else (None, self._data)
        dense = Dense(self._inner, self._chosen, batches, self._loss, self._seed, masks=masks, numbered=numbered,
                      mean=self._mean)  # fmt: skip

        def supply(weight: Weight) -> Mapping[str, Tensor]:
            own = self._method.statistics(weight.name)
            makers = {name: _always(value) for name, value in own.items()}
            return Lazy({**dense(weight).makers, "gradient": lambda: gradient_of(weight), **makers})

        return supply

    def gradients(self, number: int) -> dict[str, Tensor]:
        """Of the loss on the batch with this number to every weight, in the model's own mode; nothing of the model changes.

        Raises:
            BadInput: there is no data.
        """
        data = self._batches()
        batch = data(number) if callable(data) else data[number % len(data)]
        parameters = {weight.name: weight.parameter for weight in self._chosen.weights}
        found = mean_gradients(self._inner, parameters, [batch], self._loss, self._seed + number)
        return {name: self._mean(gradient) for name, gradient in found.items()}

    def _mean(self, gradient: Tensor) -> Tensor:
        """Over the processes, in place."""
        if isinstance(self._model, DistributedDataParallel):
            torch.distributed.all_reduce(gradient, group=self._model.process_group)
            gradient /= torch.distributed.get_world_size(self._model.process_group)
        return gradient

    def _batches(self) -> list[Any] | Callable[[int], Any]:
        if self._data is None:
            raise BadInput(f"{self._method.name!r} takes batches of its own beside those of the training loop: give the pruner "
                           "data=, a list of batches or a function of a number that returns one (and loss=, unless they are "
                           "(inputs, labels) pairs)")  # fmt: skip
        return self._data


def gradient_of(weight: Weight) -> Tensor:
    """The gradient a weight holds.

    Raises:
        BadInput: it has none.
    """
    if weight.parameter.grad is None:
        raise BadInput(f"{weight.name!r} has no gradient at this step; a gradient criterion ranks after a backward pass, "
                       "so let begin be at least 1 and do not clear gradients between backward and step")  # fmt: skip
    return weight.parameter.grad.detach()


def _batches(data: Iterable[Any]) -> list[Any]:
    if isinstance(data, (Tensor, Mapping, str)):
        raise BadInput(f"data is a {type(data).__name__}: give a list of batches, if only [batch], or a function of a number")
    found = list(data)
    if not found:
        raise BadInput("data= gave no batch; pass at least one")
    return found


def _always(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value
