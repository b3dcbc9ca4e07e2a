"""Which slices must leave together, in any model ``torch.export`` can trace.

Every dimension of every tensor has a type made of axes (:mod:`~secateurs.graph.axes`); one rule per operator
(:mod:`~secateurs.graph.rules`) says how types pass and which must be the same (:mod:`~secateurs.graph.unify`). What is left is
a :class:`Graph` of groups, and a reason for everything that cannot go.
"""

from __future__ import annotations

from secateurs.graph.groups import Frozen, Graph, Group, Keeps, Slice
from secateurs.graph.trace import trace

__all__ = ["Frozen", "Graph", "Group", "Keeps", "Slice", "trace"]
