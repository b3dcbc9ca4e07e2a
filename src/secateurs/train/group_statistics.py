"""What a criterion needs to know of the tensors of coupled groups, measured on calibration batches when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.models import survey
from secateurs.statistics import gradient_sums, mean_gradients, single_samples
from secateurs.train.dense import Dense
from secateurs.train.layer_inputs import gram_matrices, layers_read
from secateurs.train.losses import Loss

__all__ = ["GroupStatistics"]


class GroupStatistics:
    """The statistics of a model as it is now; called with a tensor's name, those of it.

    Args:
        model: unwrapped; left as it is.
        needs: names of statistics.
        parameters: those that may be asked for, by name.
        batches: of calibration data; None where there are none.
        loss: of a batch.
        seed: of dropout, and of the places of a convolution that are looked at.
        places: how many of an image these are at most.
    """

    def __init__(self, model: nn.Module, needs: Iterable[str], parameters: Mapping[str, Tensor], batches: list[Any] | None,
                 loss: Loss, seed: int, places: int = 64):  # fmt: skip
        self._model, self._parameters, self._loss, self._seed = model, dict(parameters), loss, seed
        self._needs, self._given, self._places = sorted(set(needs) - {"noise"}), batches, places

    def __call__(self, name: str) -> Mapping[str, Tensor] | None:
        """The statistics of a tensor, or None for one that has none (a norm's weight reads no input)."""
        found = {need: self._one(need, name) for need in self._needs}
        known = {need: value for need, value in found.items() if value is not None}
        return known if len(known) == len(found) else None

    def _one(self, need: str, name: str) -> Tensor | None:
        if need == "gram":
            return self._grams.get(name)
        if need == "gradient":
            return self._gradients[name]
        if need == "gradient-magnitude":
            return self._absolute[name]
        if need == "gradient-magnitude-l2":
            return self._squared[name].sqrt()
        weight = self._weights.get(name)
        return None if weight is None else self._dense(weight)[need]

    @property
    def _batches(self) -> list[Any]:
        if self._given is None:
            raise BadInput(f"this criterion needs {' and '.join(self._needs)}: pass calibration=, an iterable of batches")
        return self._given

    @cached_property
    def _gradients(self) -> dict[str, Tensor]:
        return mean_gradients(self._model, self._parameters, self._batches, self._loss, self._seed)

    @cached_property
    def _grams(self) -> dict[str, Tensor]:
        layers = {name: weight for name, weight in layers_read(self._model).items() if name in self._parameters}
        return gram_matrices(self._model, layers, self._batches, places=self._places, seed=self._seed)

    @cached_property
    def _absolute(self) -> dict[str, Tensor]:
        return self._sums("absolute")

    @cached_property
    def _squared(self) -> dict[str, Tensor]:
        return self._sums("squared")

    def _sums(self, want: str) -> dict[str, Tensor]:
        samples = single_samples(self._batches)
        found = gradient_sums(self._model, self._parameters, samples, self._loss, wants=[want], seed=self._seed)
        return {name: getattr(one, want) for name, one in found.items()}

    @cached_property
    def _survey(self) -> Any:
        return survey(self._model)

    @cached_property
    def _weights(self) -> dict[str, Any]:
        return {weight.name: weight for weight in self._survey.weights}

    @cached_property
    def _dense(self) -> Dense:
        return Dense(self._model, self._survey, self._batches, self._loss, self._seed)
