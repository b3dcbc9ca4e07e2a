"""GBLM-Pruner: Das, Ma & Shen, "Beyond Size: How Gradients Shape Pruning Decisions in Large Language Models", 2023.

Wanda's score and a first-order term, ``|W_ij| ||X_j||_2 + c |W_ij| G_ij``, where G sums the magnitudes of single sequences'
gradients, all taken on the dense model before the first block is pruned. Rows, blocks and norms are Wanda's.
"""

from __future__ import annotations

from secateurs.core.criteria import Criterion, find_criterion
from secateurs.core.option import Number
from secateurs.papers.language.wanda import Wanda

__all__ = ["Gblm"]


class Gblm(Wanda):
    """Options, besides Wanda's ``variant``.

    ``norm``: ``"l1"``, G is the sum of ``|g|`` over sequences, or ``"l2"``, the root of the sum of ``g^2``.
    ``scale``: c. How much the gradient weighs depends on it, and on the number of sequences, their length and the loss, which
    is a mean over tokens unless you give another: compare only runs that have these in common.
    """

    name = "gblm"
    summary = "Wanda's score plus |weight x gradient| of the dense model, block by block"
    needs = ("calibration", "labels")
    paper = "Das et al., Beyond Size: How Gradients Shape Pruning Decisions in Large Language Models, 2023"
    defaults = {**Wanda.defaults, "criterion": "gblm"}
    options = {"norm": ("l1", "l2"), "scale": Number(100.0), **Wanda.options}

    def criterion(self, name: str) -> Criterion:
        """The paper's score with its options; another one has no use for them."""
        if name != self.name:
            return find_criterion(name)
        return find_criterion(name, norm=self.settings["norm"], scale=self.settings["scale"])
