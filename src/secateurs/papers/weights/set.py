"""SET: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network
science", Nature Communications 2018.

A sparse network trains from the first step; again and again the smallest share of every layer's weights makes way for as many
new ones in random places, so that every layer keeps its number of weights while its connections move.
"""

from __future__ import annotations

from secateurs.core.method import Method
from secateurs.core.option import Number
from secateurs.core.regrow import Regrowth
from secateurs.papers.weights.rigl import span

__all__ = ["Set"]


class Set(Method):
    """Options.

    ``share``: of a layer's weights that are exchanged, 0.3 all along. ``until``: the share of training in which weights are.
    The paper removes the smallest positive and the largest negative weights, which are those of smallest magnitude on either
    side; here, as in later work, they are ranked by magnitude together. It exchanges once per epoch: say ``every``.
    """

    name = "set"
    summary = "sparse from the first step; the smallest weights move to random places"
    when = "during training"
    needs = ("training",)
    paper = "Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity, 2018"
    defaults = {"criterion": "random", "allocation": "erk", "schedule": "one-shot", "enforcement": "overwrite", "every": 100}
    options = {"share": Number(0.3, 0, 1), "until": Number(1.0, 0, 1)}

    def regrowth(self, every: int, total_steps: int | None) -> Regrowth | None:
        """A fixed share of every layer, grown at random."""
        share, end = self.settings["share"], span(self.name, self.settings["until"], total_steps)
        return Regrowth(lambda step: share, every, end, by="random") if share else None
