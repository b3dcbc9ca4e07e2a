"""Global magnitude pruning: Gupta et al., "Is Complexity Required for Neural Network Pruning?", 2022.

Rank ``|w|`` of all layers together and remove the smallest ``floor(s N + 1/2)`` of all N, at once or on a schedule. With the
minimum threshold (``allocation="global-floor"``) every layer keeps at least F weights, 0.05 % of all N unless told, or all it
has.
"""

from secateurs.core.method import Method

__all__ = ["GlobalMagnitude"]


class GlobalMagnitude(Method):
    """Remove the smallest ``|w|`` of all layers together; ``allocation="global-floor"`` keeps a minimum in every layer.

    In a Pruner, ``schedule="cubic"`` with ``end`` does it gradually. The official code keeps ``|w| >=`` the k-th smallest,
    which removes k - 1, and may not end where every layer is at its floor; here the count is exact and such floors are refused.
    """

    name = "global-magnitude"
    summary = "smallest weights of the whole network, in one shot or on a schedule"
    when = "after training"
    paper = "Gupta et al., Is Complexity Required for Neural Network Pruning? A Case Study on Global Magnitude Pruning, 2022"
    defaults = {"criterion": "magnitude", "allocation": "global", "schedule": "one-shot", "enforcement": "overwrite"}
