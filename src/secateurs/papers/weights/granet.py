"""GraNet: Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration", NeurIPS 2021, arXiv:2106.10404.

Every ``every`` steps the smallest weights of the whole network go, up to the cubic ramp's density
``d_f + (d_i - d_f)(1 - p)^3``; then, inside every layer, the smallest weights make way for as many dead ones, those whose
gradient is largest: half of a layer's weights at the beginning, almost none at the end of training.
"""

from __future__ import annotations

from secateurs.core.method import Method
from secateurs.core.option import Number
from secateurs.core.regrow import Regrowth
from secateurs.papers.weights.rigl import annealed, span

__all__ = ["GraNet"]


class GraNet(Method):
    """Dense-to-sparse; with ``initial_sparsity=0.5``, sparse-to-sparse from random masks of ERK densities.

    Options: ``first`` and ``last``, the share of a layer's weights exchanged at the beginning and at the end of training.
    With ``first=0`` nothing is exchanged: gradual global magnitude pruning. ``allocation="uniform"`` ranks inside layers.
    Grown weights begin at zero, and what the optimizer remembered of them is forgotten, which is what masking the momentum at
    every step comes to. The official code keeps one weight less than its density at every ranking, and draws the
    random masks entry by entry, so that its counts scatter.
    """

    name = "granet"
    summary = "smallest weights of the whole network on a schedule, some moved to large gradients"
    when = "during training"
    needs = ("training",)
    paper = "Liu et al., Sparse Training via Boosting Pruning Plasticity with Neuroregeneration, NeurIPS 2021"
    beginning = {"criterion": "random", "allocation": "erk"}
    defaults = {"criterion": "magnitude", "allocation": "global", "schedule": "cubic", "enforcement": "overwrite",
                "every": 1000}  # fmt: skip
    options = {"first": Number(0.5, 0, 1), "last": Number(0.005, 0, 1)}

    def regrowth(self, every: int, total_steps: int | None) -> Regrowth | None:
        """A share that falls along half a cosine over all of training, grown by gradient."""
        first, last = self.settings["first"], self.settings["last"]
        end = span(self.name, 1.0, total_steps)
        return Regrowth(lambda step: annealed(first, last, step, end), every, end, round_up=True) if first else None
