"""One rule per operator: from the dimensions of its inputs to those of its outputs, unifying what has to be one.

The table is the whole list. An operator that is not in it freezes every axis it touches.
"""

from __future__ import annotations

from collections.abc import Callable

from secateurs.graph.calls import Call, Dims, Typed
from secateurs.graph.rules import attention, conv, elementwise, embedding, linear, norm, pool, recurrent, reduce, select, shape

__all__ = ["RULES", "Given", "Rule", "rule_for"]

Given = Dims | Typed | list[Dims] | list[Typed]
Rule = Callable[[Call], Given]

FAMILIES = (elementwise, linear, conv, norm, attention, shape, select, reduce, embedding, recurrent, pool)
RULES: dict[str, Rule] = {}
for family in FAMILIES:
    RULES.update(family.RULES)


def rule_for(operator: str) -> Rule | None:
    """The rule of an operator by its schema's name (``aten::relu``); one that works in place has that of its twin."""
    name = operator.removeprefix("aten::")
    if name in RULES:
        return RULES[name]
    return RULES.get(name.removesuffix("_")) if not name.endswith("__") else None
