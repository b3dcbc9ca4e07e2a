"""Pruning inside a training loop, and in one call."""

from secateurs.train.hold import Held
from secateurs.train.once import Pruned, prune
from secateurs.train.pruner import Pruner

__all__ = ["Held", "Pruned", "Pruner", "prune"]
