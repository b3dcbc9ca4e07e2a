"""One rule per ONNX operator: which of PyTorch's it is, on which arguments.

The table is the whole list. An operator that is not in it freezes every axis it touches; a rule that returns ``None`` says the
same of this use of it.
"""

from __future__ import annotations

from collections.abc import Callable

from secateurs.graph.onnx.call import OnnxCall
from secateurs.graph.onnx.file import Node
from secateurs.graph.onnx.rules import attention, elementwise, linear, norm, recurrent, reduce, select, shape, space
from secateurs.graph.rules import Given

__all__ = ["RULES", "OnnxRule", "rule_of"]

OnnxRule = Callable[[OnnxCall], Given | None]

FAMILIES = (attention, elementwise, linear, norm, recurrent, reduce, select, shape, space)
RULES: dict[str, OnnxRule] = {}
for family in FAMILIES:
    RULES.update(family.RULES)
MICROSOFT = "com.microsoft"


def rule_of(node: Node) -> OnnxRule | None:
    """The rule of a node's operator; those of onnxruntime's own domain carry its name."""
    if node.domain not in ("", MICROSOFT):
        return None
    own = RULES.get(f"{MICROSOFT}.{node.operator}") if node.domain else None
    return own or (None if node.domain else RULES.get(node.operator))
