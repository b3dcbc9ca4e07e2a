"""Global magnitude pruning: one ranking over the whole network."""

from secateurs.core.method import Method

__all__ = ["GlobalMagnitude"]


class GlobalMagnitude(Method):
    """Remove the smallest ``|w|`` of all layers together; ``allocation="global-floor"`` keeps a minimum in every layer."""

    name = "global-magnitude"
    summary = "smallest weights of the whole network, in one shot or on a schedule"
    when = "after training"
    paper = "Gupta et al., Is Complexity Required for Neural Network Pruning? A Case Study on Global Magnitude Pruning, 2022"
    defaults = {"criterion": "magnitude", "allocation": "global", "schedule": "one-shot", "enforcement": "overwrite"}
