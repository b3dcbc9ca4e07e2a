"""One-shot magnitude pruning inside each layer."""

from secateurs.core.method import Method

__all__ = ["Magnitude"]


class Magnitude(Method):
    """Remove the smallest ``|w|`` of every layer, once."""

    name = "magnitude"
    summary = "smallest weights of every layer, in one shot, without data"
    when = "after training"
    paper = "Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015"
    defaults = {"criterion": "magnitude", "allocation": "uniform", "schedule": "one-shot", "enforcement": "overwrite"}
