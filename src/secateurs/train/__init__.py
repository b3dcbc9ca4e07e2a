"""Pruning inside a training loop, and in one call."""

from secateurs.train.blockwise import BlockDone, goes_by_blocks
from secateurs.train.from_folder import PrunedFolder, prune_folder
from secateurs.train.hold import Held
from secateurs.train.once import Pruned, prune
from secateurs.train.perplexity import FolderPerplexity, folder_perplexity
from secateurs.train.pruner import Pruner

__all__ = [
    "BlockDone", "FolderPerplexity", "Held", "Pruned", "PrunedFolder", "Pruner", "folder_perplexity", "goes_by_blocks", "prune",
    "prune_folder",
]  # fmt: skip
