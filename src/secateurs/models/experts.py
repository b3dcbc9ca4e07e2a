"""Stacked experts: three-dimensional tensors that hold one matrix per expert.

Libraries store them ``[experts, out, in]`` or ``[experts, in, out]``. Which of the two is read from what the module says of
itself and from the shapes; where neither tells, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from secateurs.core.layout import Layout

__all__ = ["expert_layouts", "is_experts", "stacked"]

OUT_IN = Layout(out_dim=1, in_dim=2)
IN_OUT = Layout(out_dim=2, in_dim=1)

# classes that say nothing of their layout, as transformers writes their forward: linear(x, weight[expert])
_KNOWN = {"JetMoeParallelExperts": OUT_IN, "GraniteMoeParallelExperts": OUT_IN, "InklingSharedExperts": OUT_IN}


def is_experts(module: nn.Module) -> bool:
    """Whether a class of ``module`` is called ``...Experts``, or ``...NaiveMoe``, as every stacked one in transformers is."""
    return any(base.__name__.endswith(("Experts", "NaiveMoe")) for base in type(module).__mro__)


def stacked(module: nn.Module) -> dict[str, nn.Parameter]:
    """The three-dimensional parameters of ``module`` that are no biases."""
    return {name: p for name, p in module._parameters.items() if p is not None and p.ndim == 3 and "bias" not in name}


def expert_layouts(module: nn.Module) -> dict[str, Layout]:
    """The layout of each stacked expert tensor of ``module``; empty where it is no such module or the layout is unknown."""
    if not is_experts(module):
        return {}
    tensors = stacked(module)
    layout = _layout(module, {name: tuple(p.shape[1:]) for name, p in tensors.items()})
    return dict.fromkeys(tensors, layout) if layout else {}


def _layout(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Layout | None:
    said, seen = getattr(module, "is_transposed", None), _from_shapes(shapes)
    if isinstance(said, bool):
        told = IN_OUT if said else OUT_IN
        return told if seen in (None, told) else None  # a module that contradicts its own shapes is not understood
    return seen or next((_KNOWN[base.__name__] for base in type(module).__mro__ if base.__name__ in _KNOWN), None)


def _from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Layout | None:
    """Gate and up together are twice as wide as what goes into down, so the two shapes fit one layout only."""
    up, down = shapes.get("gate_up_proj"), shapes.get("down_proj")
    if up is None or down is None:
        return None
    if up == (2 * down[1], down[0]):
        return OUT_IN
    return IN_OUT if up == (down[1], 2 * down[0]) else None
