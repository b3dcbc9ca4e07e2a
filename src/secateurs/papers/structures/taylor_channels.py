"""First-order importance of channels: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019."""

from secateurs.core.method import Method

__all__ = ["TaylorChannels"]


class TaylorChannels(Method):
    """Remove the structures with the smallest sum of ``(g w)^2`` over all that goes with them, ranked over the whole network.

    The gradient is the mean over the calibration batches; the paper squares each batch's and adds these up while it trains.
    """

    name = "taylor-channels"
    summary = "channels, heads and neurons with the smallest sum of (weight x gradient)^2 of the whole network"
    prunes = ("channels", "heads", "neurons")
    structures = ("channels", "heads", "neurons")
    when = "after training"
    needs = ("gradient", "labels")
    paper = "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019"
    defaults = {"criterion": "taylor", "power": 2.0, "scope": "global"}
