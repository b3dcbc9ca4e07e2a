"""What is prunable, as a rule by kind of layer: never "has a weight".

:func:`roles` answers for one module: which of its parameters are weights, of what kind and layout. Everything it does not
name stays as it is. :func:`declare` teaches it a layer class of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from weakref import WeakKeyDictionary

import torch
from torch import nn

from secateurs.core.layout import Layout
from secateurs.errors import BadInput, near
from secateurs.models.experts import expert_layouts

__all__ = ["CONVOLUTIONS", "KINDS", "Role", "declare", "inherits", "roles"]

CONVOLUTIONS = ("conv", "depthwise-conv", "transposed-conv")
KINDS = ("linear", *CONVOLUTIONS, "embedding", "recurrent", "attention", "experts")

_OUT_IN = Layout()
_IN_OUT = Layout(out_dim=1, in_dim=0)
_RECURRENT = re.compile(r"weight_[ih]h(_l\d+)?(_reverse)?|weight_hr_l\d+(_reverse)?")


@dataclass(frozen=True)
class Role:
    """What a parameter is to the module that holds it.

    ``group`` names, within the module, the tensors ranked together as one; empty for a tensor ranked alone.
    """

    kind: str
    layout: Layout = _OUT_IN
    group: str = ""


_declared: WeakKeyDictionary[type[nn.Module], dict[str, Role]] = WeakKeyDictionary()


def declare(layer: type[nn.Module], attribute: str, *, kind: str = "linear", layout: Layout = _OUT_IN) -> None:
    """Say that ``attribute`` of every ``layer`` (a class of your own, and its subclasses) is a prunable weight.

    >>> import torch
    >>> class Mixer(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.mix = nn.Parameter(torch.randn(8, 4))  # [in, out]
    >>> declare(Mixer, "mix", kind="linear", layout=Layout(out_dim=1, in_dim=0))

    Args:
        layer: the class, not an instance.
        attribute: the name of its parameter, as in ``self.<attribute>``.
        kind: one of :data:`KINDS`; what ``types=`` and the named exemptions go by.
        layout: which dimension is output and which input; ``[out, in, ...]`` unless told.

    Raises:
        BadInput: ``layer`` is not a module class, the kind is unknown, or the layout names one dimension twice.
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise BadInput(f"declare({layer!r}, ...): give the layer's class, a subclass of torch.nn.Module")
    if not (isinstance(attribute, str) and attribute.isidentifier()):
        raise BadInput(f"declare({layer.__name__}, {attribute!r}): give the name of one of its parameters, as 'weight'")
    if kind not in KINDS:
        raise BadInput(f"declare(..., kind={kind!r}): the kinds are {', '.join(KINDS)}{near(kind, KINDS)}")
    if min(layout.out_dim, layout.in_dim) < 0 or layout.out_dim == layout.in_dim:
        raise BadInput(f"declare(..., layout={layout}): out_dim and in_dim are two different dimensions, counted from 0")
    _declared.setdefault(layer, {})[attribute] = Role(kind, layout)


def inherits(module: nn.Module, name: str) -> bool:
    """Whether ``name`` (``package.module.Class``) is a class of ``module``: knows a library's layer without importing it."""
    return any(f"{base.__module__}.{base.__qualname__}" == name for base in type(module).__mro__)


def roles(module: nn.Module) -> dict[str, Role]:
    """The prunable parameters of ``module``, by attribute; ``"out_proj.weight"`` where it uses a child's weight directly.

    What a user declared for the class, or for a base of it, goes before the built-in rule.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return {}  # its forward is compiled: a mask set from Python would not be seen
    found = dict(_roles(module))
    for base in reversed(type(module).__mro__):
        found.update(_declared.get(base, {}))
    return {name: role for name, role in found.items() if _holds(module, name)}


def _holds(module: nn.Module, name: str) -> bool:
    path, _, attribute = name.rpartition(".")
    owner = module._modules.get(path) if path else module
    return owner is not None and owner._parameters.get(attribute) is not None


@singledispatch
def _roles(module: nn.Module) -> dict[str, Role]:
    if inherits(module, "transformers.pytorch_utils.Conv1D"):
        return {"weight": Role("linear", _IN_OUT)}
    return {name: Role("experts", layout) for name, layout in expert_layouts(module).items()}


@_roles.register(nn.Linear)
@_roles.register(nn.Bilinear)
def _linear(module: nn.Module) -> dict[str, Role]:
    return {"weight": Role("linear")}


@_roles.register(nn.Conv1d)
@_roles.register(nn.Conv2d)
@_roles.register(nn.Conv3d)
def _conv(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> dict[str, Role]:
    return {"weight": Role("depthwise-conv" if module.groups == module.in_channels > 1 else "conv")}


@_roles.register(nn.ConvTranspose1d)
@_roles.register(nn.ConvTranspose2d)
@_roles.register(nn.ConvTranspose3d)
def _transposed(module: nn.Module) -> dict[str, Role]:
    return {"weight": Role("transposed-conv", _IN_OUT)}


@_roles.register(nn.Embedding)
@_roles.register(nn.EmbeddingBag)
def _embedding(module: nn.Module) -> dict[str, Role]:
    # [entries, features], as the output layer tied to it reads it: one row per word
    return {"weight": Role("embedding")}


@_roles.register(nn.RNNBase)
@_roles.register(nn.RNNCellBase)
def _recurrent(module: nn.Module) -> dict[str, Role]:
    return dict(_recurrent_roles(module))


def _recurrent_roles(module: nn.Module) -> Iterator[tuple[str, Role]]:
    """The input and the hidden matrix of a layer and direction are one ``4h x (in + h)`` matrix, ranked as one.

    The projection (``weight_hr``, Sak et al. 2014) is another matrix and is ranked alone. A cell is layer 0.
    """
    for name in module._parameters:
        if found := _RECURRENT.fullmatch(name):
            layer = (found[1] or "_l0") + (found[2] or "")
            yield name, Role("recurrent", group="" if name.startswith("weight_hr") else layer[1:])


@_roles.register(nn.MultiheadAttention)
def _attention(module: nn.MultiheadAttention) -> dict[str, Role]:
    # out_proj is a child whose forward never runs: attention reads its weight
    names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    return {name: Role("attention") for name in names}
