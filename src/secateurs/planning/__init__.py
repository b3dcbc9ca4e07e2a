"""From choices to a plan: which entries go, as exact masks, and the Plan that records them."""

from secateurs.planning.amounts import choose_weights, make_schedule, own_shares, target_sparsity
from secateurs.planning.compute import by_compute, same_compute
from secateurs.planning.decide import Choices, Supply, count, decide
from secateurs.planning.group_costs import Cost, Costs
from secateurs.planning.group_scores import Scoring
from secateurs.planning.groups import GroupEntry, GroupPlan, load_plan
from secateurs.planning.plan import Entry, Plan, Undo

__all__ = [
    "Choices", "Cost", "Costs", "Entry", "GroupEntry", "GroupPlan", "Plan", "Scoring", "Supply", "Undo",
    "by_compute", "choose_weights", "count", "decide", "load_plan", "make_schedule", "own_shares", "same_compute",
    "target_sparsity",
]  # fmt: skip
