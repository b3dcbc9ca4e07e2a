"""DepGraph's group norm: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023."""

from secateurs.core.method import Method

__all__ = ["DepGraph"]


class DepGraph(Method):
    """Remove the indices with the smallest squared norm over all that goes with them: producers, consumers and norms.

    The members' norms are averaged, divided by their mean within the group, and ranked over the whole network (section 3.2 and
    the authors' code). The paper trains towards group sparsity before it cuts: that is
    :class:`secateurs.train.group_lasso.GroupLasso`, in any training loop.
    """

    name = "depgraph"
    summary = "the smallest norms of whole coupled groups of the network, each relative to its group's mean"
    prunes = ("channels", "heads", "head-dims", "neurons", "width", "experts")
    structures = ("groups",)
    when = "after training"
    paper = "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023"
    defaults = {"criterion": "magnitude", "power": 2.0, "aggregate": "mean", "normalize": "mean", "scope": "global"}
