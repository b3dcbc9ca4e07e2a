"""First-order pruning by |w g|."""

from secateurs.core.method import Method

__all__ = ["Taylor"]


class Taylor(Method):
    """Remove the weights whose loss changes least to first order, ranked over the whole network.

    On a freshly initialised network and one batch this is SNIP's connection sensitivity.
    """

    name = "taylor"
    summary = "smallest |weight x gradient| of the whole network; SNIP when done at initialisation"
    when = "before training"
    needs = ("gradient", "labels")
    paper = "Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019"
    defaults = {"criterion": "taylor", "allocation": "global", "schedule": "one-shot", "enforcement": "overwrite"}
