"""Sparse pre-training: Jin et al., "The Journey Matters", 2025.

Train dense until 25 % of the run's compute is spent; until 75 % is, remove at every ``every``-th step the same share
``r = 1 - (1 - s)^(1/n)`` of the weights that are left, the smallest ``|w|`` of the whole network; train the rest at the final
sparsity. Optimizer and learning rate run through, and nothing removed returns. The loss follows the *average* number of weights
over training (:mod:`secateurs.core.scaling`), so a run lengthened to the compute of a dense one
(:func:`secateurs.planning.same_compute`) reaches its loss with fewer weights in the end.
"""

from secateurs.core.method import Method

__all__ = ["Journey"]


class Journey(Method):
    """Global magnitude, geometric, from 25 to 75 % of compute, of the selected weights: leave out embeddings and head.

    ``criterion="random"`` is the paper's control, and ``structure="2:4:global"`` its semi-structured variant: up to half the
    weights go, never one of the two largest of four. ``begin``, ``end`` and ``schedule`` of a recipe give any other timing.

    The official code keeps removed values in storage and masks the product; here they are zeroed after every step. What stays
    has the same gradients either way, unless gradients are clipped by a norm taken over all of them.
    """

    name = "journey"
    summary = "smallest weights of the whole network, the same share of what is left at every update"
    when = "during training"
    needs = ("training",)
    paper = ("Jin et al., The Journey Matters: Average Parameter Count over Pre-training Unifies Sparse and Dense Scaling "
             "Laws, 2025")  # fmt: skip
    defaults = {"criterion": "magnitude", "allocation": "global", "schedule": "geometric", "enforcement": "overwrite",
                "begin": "25% of compute", "end": "75% of compute", "every": 100}  # fmt: skip
