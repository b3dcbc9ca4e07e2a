"""What is known of a model's weights before anything is removed, each piece computed when it is first asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.fisher import Estimate
from secateurs.errors import BadInput
from secateurs.models import Survey, Weight, broadcast
from secateurs.statistics import (
    GradientSums,
    check_reached,
    gradient_sums,
    hessian_gradients,
    mean_gradients,
    single_samples,
)
from secateurs.statistics.fisher import Fisher, InverseFisher, inverse_fisher
from secateurs.statistics.zeroth_order import slopes
from secateurs.train.losses import Loss
from secateurs.train.walk import Block, Inputs, Ranks, walk

__all__ = ["Dense", "Lazy", "norms"]


class Lazy(Mapping[str, Tensor]):
    """Tensors by name, computed when they are looked up."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]):
        self._makers = dict(makers)

    @property
    def makers(self) -> dict[str, Callable[[], Tensor]]:
        """How each is computed."""
        return dict(self._makers)

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class Dense:
    """The statistics of a model and its calibration batches, for :func:`secateurs.planning.decide`.

    Args:
        model: unwrapped; left as it is.
        chosen: the weights.
        calibration: batches; gone through once where one statistic needs them once, and otherwise kept.
        loss: of a batch.
        seed: of shuffled loaders, dropout and noise.
        walking: arguments of :func:`secateurs.train.walk.walk` for the norms.
        masks: of the weights, where some are masked already (True = kept); none are if None.
        numbered: in the place of ``calibration``, a function of a number that returns the batch, for Fisher matrices.
        mean: of a gradient over processes that have batches of their own, for Fisher matrices.
        ranks: the processes that divide the batches among them. Each ends with the same bits, and mean gradients, whose random
            numbers run on from batch to batch, are the first one's, of all batches.
    """

    def __init__(self, model: nn.Module, chosen: Survey, calibration: Iterable[Any] | None, loss: Loss, seed: int,
                 walking: Mapping[str, Any] | None = None, ranks: Ranks | None = None,
                 masks: Mapping[str, Tensor] | None = None, numbered: Callable[[int], Any] | None = None,
                 mean: Callable[[Tensor], Tensor] | None = None):  # fmt: skip
        self._masks, self._numbered, self._mean = masks, numbered, mean
        self._model, self._chosen, self._given, self._ranks = model, chosen, calibration, ranks or Ranks()
        self._loss, self._seed, self._walking = loss, seed, dict(walking or {})
        self._sums: dict[str, dict[str, Tensor]] = {}  # no cache that holds self: what is measured is large, and goes with it
        self._fishers: dict[Estimate, InverseFisher] = {}

    def __call__(self, weight: Weight) -> Lazy:
        """What there is to know of ``weight``."""
        return Lazy({
            "gradient": lambda: self._gradients[weight.name],
            "fisher": lambda: self._fisher_of(weight),
            "gradient-magnitude": lambda: self._gradient_sums("absolute")[weight.name],
            "gradient-magnitude-l2": lambda: self._gradient_sums("squared")[weight.name].sqrt(),
            "hessian-gradient": lambda: self._hessian_gradients[weight.name],
            "norms": lambda: self._norms_of(weight),
            "slope": lambda: torch.tensor(self._slopes[weight.name], dtype=torch.float64),
        })  # fmt: skip

    @cached_property
    def batches(self) -> list[Any]:
        """The calibration batches; a loader that shuffles does so by the seed.

        Raises:
            BadInput: there are none.
        """
        with torch.random.fork_rng([]):
            torch.manual_seed(self._seed)
            found = list(self._batches())
        if not found:
            raise BadInput("calibration gave no batch; pass at least one")
        return found

    def _batches(self) -> Iterable[Any]:
        if self._given is None:
            raise BadInput("this needs calibration batches: pass calibration=, an iterable of batches")
        if isinstance(self._given, (Tensor, Mapping, str)):
            raise BadInput(f"calibration is a {type(self._given).__name__}: give an iterable of batches, if only [batch]")
        return self._given

    @property
    def _parameters(self) -> dict[str, Tensor]:
        return {weight.name: weight.parameter for weight in self._chosen.weights}

    @cached_property
    def _gradients(self) -> dict[str, Tensor]:
        if self._given is None:
            raise BadInput("this criterion needs gradients: pass calibration=, an iterable of batches (and loss=, unless they "
                           "are (inputs, labels) pairs)")  # fmt: skip
        batches = self.batches if "batches" in self.__dict__ else self._batches()
        found = mean_gradients(self._model, self._parameters, batches, self._loss, self._seed) if self._ranks.first else {}
        return self._for_all(found)

    @cached_property
    def _hessian_gradients(self) -> dict[str, Tensor]:
        batches = self.batches
        found = hessian_gradients(self._model, self._parameters, batches, self._loss, self._seed) if self._ranks.first else {}
        return self._for_all(found)

    def _fisher_of(self, weight: Weight) -> Any:
        return Fisher(weight.name, self._fisher)

    def _fisher(self, estimate: Estimate) -> InverseFisher:
        """Where ``ranks`` divide the work, each goes through all of the batches here, and all have the same bits."""
        if estimate not in self._fishers:
            if self._given is None and self._numbered is None:
                raise BadInput("a Fisher matrix takes gradients of small batches: give calibration= to sc.prune, data= to a "
                               "Pruner (and loss=, unless they are (inputs, labels) pairs)")  # fmt: skip
            listed = self.batches if "batches" in self.__dict__ else None
            batches = listed or (map(self._numbered, itertools.count()) if self._numbered else self._batches())
            self._fishers[estimate] = inverse_fisher(self._model, self._parameters, batches, self._loss, estimate,
                                                     masks=self._masks, mean=self._mean, seed=self._seed)  # fmt: skip
        return self._fishers[estimate]

    def _gradient_sums(self, want: str) -> dict[str, Tensor]:
        if want not in self._sums:
            self._sums[want] = self._measured_sums(want)
        return self._sums[want]

    def _measured_sums(self, want: str) -> dict[str, Tensor]:
        parameters, samples = self._parameters, single_samples(self._share)
        part = gradient_sums(self._model, parameters, samples, self._loss, wants=[want], seed=self._seed, whole=False)
        owners = {name: i % self._ranks.size for i, name in enumerate(parameters)}
        found = self._ranks.merged(part, GradientSums, owners, {name: p.device for name, p in parameters.items()})
        check_reached(found)
        return self._for_all({name: getattr(one, want) for name, one in found.items()})

    @cached_property
    def _slopes(self) -> dict[str, float]:
        first = self._ranks.share(len(self.batches)).start
        part = slopes(self._model, self._parameters, self._share, self._loss, seed=self._seed, first=first)
        parts = self._ranks.gather(part)
        return {name: math.fsum(slope for one in parts for slope in one[name]) for name in part}

    @property
    def _share(self) -> list[Any]:
        """The batches of this process."""
        return [self.batches[i] for i in self._ranks.share(len(self.batches))]

    def _for_all(self, mine: dict[str, Tensor]) -> dict[str, Tensor]:
        """What any process has of the weights, beside each of them."""
        if self._ranks.size == 1:
            return mine
        found = self._ranks.union(mine)
        return {name: found[name].to(p.device) for name, p in self._parameters.items() if name in found}

    @cached_property
    def _norms(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def record(block: Block) -> None:
            found.update({name: norms(inputs) for name, inputs in block.statistics.items()})

        walk(self._model, self._chosen, self.batches, ["norms"], record, ranks=self._ranks,
             **self._walking | {"propagate": "dense"})  # fmt: skip
        return self._for_all(found)

    def _norms_of(self, weight: Weight) -> Tensor:
        if weight.name not in self._norms:
            raise BadInput(f"no calibration batch reached {weight.name!r}, so there is nothing to judge it by: exclude it")
        return broadcast(weight, self._norms[weight.name])


def norms(inputs: Inputs) -> Tensor:
    """``sqrt(sum of x_j^2 over tokens / sequences)`` of what a weight reads, ``[parts, columns]``."""
    kind = "norms" if "norms" in inputs else "gram"
    return torch.stack([(one.squares / max(one.sequences, 1)).sqrt() for one in inputs[kind]])  # type: ignore[attr-defined]
