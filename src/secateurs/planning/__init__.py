"""From choices to a plan: which entries go, as exact masks, and the Plan that records them."""

from secateurs.planning.amounts import choose_weights, make_schedule, own_shares, target_sparsity
from secateurs.planning.decide import Choices, Supply, count, decide
from secateurs.planning.plan import Entry, Plan, Undo

__all__ = [
    "Choices", "Entry", "Plan", "Supply", "Undo",
    "choose_weights", "count", "decide", "make_schedule", "own_shares", "target_sparsity",
]  # fmt: skip
