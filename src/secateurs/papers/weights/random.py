"""Random pruning: Liu et al., "The Unreasonable Effectiveness of Random Pruning", ICLR 2022.

Before training, choose a density for every layer, keep that many of its weights at random, and never change the mask. Only the
densities matter: Erdos-Renyi-kernel ``d_l = eps sum(shape) / prod(shape)`` unless another allocation is named, such as
``"uniform"``, ``"uniform-plus"``, ``"er"``, ``"erk-plus"``, or ``"snip"`` and ``"grasp"``, whose counts come of a few batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from secateurs.core.method import Known, Method

__all__ = ["Random"]


class Random(Method):
    """Draw the removed weights at random from the seed and the layer's name, and never change them.

    The published masks are Bernoulli draws, whose counts scatter by ``sqrt(sum N_l d_l (1 - d_l))``; here the counts are exact.

    Options.

    ``rescale``: multiply what stays of a layer of density d by ``1 / sqrt(d)``, so that its outputs have the variance they had.
    For networks without batch norm, which does the same, and once, on fresh weights: doing it again would multiply again.
    """

    name = "random"
    summary = "random weights of every layer at ERK densities, fixed before training"
    when = "before training"
    paper = "Liu et al., The Unreasonable Effectiveness of Random Pruning, ICLR 2022"
    defaults = {"criterion": "random", "allocation": "erk", "schedule": "one-shot", "enforcement": "overwrite"}
    options = {"rescale": (False, True)}

    @property
    def compensates(self) -> bool:
        """Only where asked for."""
        return bool(self.settings["rescale"])

    def compensate(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Known) -> Mapping[str, Tensor]:
        """``w / sqrt(d)`` where asked for; an empty layer stays empty."""
        if not self.settings["rescale"]:
            return {}
        kept = {name: int(mask.sum()) / mask.numel() for name, mask in masks.items()}
        return {name: value / math.sqrt(kept[name]) for name, value in values.items() if kept[name]}
