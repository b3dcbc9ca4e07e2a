"""From choices to a plan: which entries go, as exact masks, and the Plan that records them."""

from secateurs.planning.amounts import choose_weights, make_schedule, own_shares, target_sparsity
from secateurs.planning.decide import Choices, decide
from secateurs.planning.plan import Entry, Plan, Undo

__all__ = ["Choices", "Entry", "Plan", "Undo", "choose_weights", "decide", "make_schedule", "own_shares", "target_sparsity"]
