"""Random structures: Mittal et al., "Recovering from Random Pruning", WACV 2018."""

from secateurs.core.method import Method

__all__ = ["RandomChannels"]


class RandomChannels(Method):
    """Remove indices drawn by the seed, the same share of every group: what a criterion has to be better than."""

    name = "random-channels"
    summary = "channels, heads and neurons drawn at random, a share of every group"
    prunes = ("channels", "heads", "neurons")
    structures = ("channels", "heads", "neurons")
    when = "after training"
    paper = "Mittal et al., Recovering from Random Pruning: On the Plasticity of Deep Convolutional Neural Networks, WACV 2018"
    defaults = {"criterion": "random", "scope": "local"}
