"""Random pruning: only the layers' densities matter."""

from secateurs.core.method import Method

__all__ = ["Random"]


class Random(Method):
    """Draw the removed weights at random from the seed and the layer's name, and never change them.

    The published masks are Bernoulli draws, whose counts scatter by ``sqrt(sum N_l d_l (1 - d_l))``; here the counts are exact.
    """

    name = "random"
    summary = "random weights of every layer at ERK densities, fixed before training"
    when = "before training"
    paper = "Liu et al., The Unreasonable Effectiveness of Random Pruning, ICLR 2022"
    defaults = {"criterion": "random", "allocation": "erk", "schedule": "one-shot", "enforcement": "overwrite"}
