"""Pruning inside a training loop, and in one call."""

from secateurs.train.blockwise import BlockDone, goes_by_blocks
from secateurs.train.hold import Held
from secateurs.train.once import Pruned, prune
from secateurs.train.pruner import Pruner

__all__ = ["BlockDone", "Held", "Pruned", "Pruner", "goes_by_blocks", "prune"]
