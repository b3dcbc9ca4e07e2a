"""Gradual magnitude pruning: Zhu & Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878.

While the network trains, every ``every`` steps the smallest weights of each layer are masked up to
``s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_n - t_0))^3``, all layers alike; masked weights keep their stored value and
return if a later ranking finds it large enough; from ``end`` on the masks are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateurs.core.method import Method
from secateurs.core.schedules import layerwise
from secateurs.core.structures import Structure
from secateurs.errors import BadInput

__all__ = ["Gmp", "histogram_threshold"]


class Gmp(Method):
    """Options.

    ``order``: ``"all"`` layers at every update; ``"layerwise"``, one after the other between two updates, the order the
    paper's translation study found best on average; ``"global"``, one ranking over all layers.
    ``threshold``: ``"exact"`` counts, or ``"histogram"``, the smoothed 255-bin threshold of the original TensorFlow code,
    whose sparsity lags behind the schedule: it is there to reproduce that code, and its counts are not promised.
    """

    name = "gmp"
    summary = "smallest weights of every layer, more and more of them while the network trains"
    when = "during training"
    needs = ("training",)
    paper = "Zhu & Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression, 2017"
    defaults = {"criterion": "magnitude", "allocation": "uniform", "schedule": "cubic", "enforcement": "keep", "every": 100}
    options = {"order": ("all", "layerwise", "global"), "threshold": ("exact", "histogram")}

    def __init__(self, options: Mapping[str, Any] | None = None):
        super().__init__(options)
        if self.settings["order"] == "layerwise":
            self.order = layerwise
        if self.settings["order"] == "global":
            if self.settings["threshold"] == "histogram":
                raise BadInput("threshold='histogram' smooths a threshold per layer; it does not go with order='global'")
            self.defaults = {**self.defaults, "allocation": "global"}
        self._smoothed: dict[str, float] = {}

    def check(self, structure: Structure) -> None:
        """A histogram's one threshold per layer cannot keep N of every M."""
        if structure.grouped and self.settings["threshold"] == "histogram":
            raise BadInput("threshold='histogram' cuts a layer at one value; it does not go with "
                           f"structure={structure.name!r} ranked in groups")  # fmt: skip

    def choose(self, name: str, scores: Tensor, remove: int) -> Tensor:
        """Exact selection, or everything above the smoothed threshold."""
        if self.settings["threshold"] == "exact":
            return super().choose(name, scores, remove)
        threshold = 0.9 * self._smoothed.get(name, 0.0) + 0.1 * histogram_threshold(scores, remove / scores.numel())
        self._smoothed[name] = threshold
        return scores > threshold

    def state_dict(self) -> dict[str, Any]:
        """The smoothed thresholds by layer."""
        return {"smoothed": dict(self._smoothed)} if self._smoothed else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the thresholds."""
        self._smoothed = dict(state.get("smoothed", {}))


def histogram_threshold(scores: Tensor, sparsity: float, bins: int = 255) -> float:
    """The lower edge of the first of ``bins`` equal bins over ``[0, max]`` by which ``sparsity`` of the scores is reached.

    It is ``(number of bins whose cumulative share is below sparsity) * max / bins``, and tends to the quantile as bins grow.
    """
    scores = scores.float()
    top = float(scores.max())
    if top == 0:
        return 0.0
    share = torch.histc(scores, bins, 0.0, top).double().cumsum(0) / scores.numel()
    return int(torch.count_nonzero(share < sparsity)) * top / bins
