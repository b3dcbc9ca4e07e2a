"""Why a parameter is left alone, in words for the person who asks."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from secateurs.models.experts import is_experts, stacked

__all__ = ["is_norm", "packed_weights", "reparametrised", "why_left"]

_NORM = re.compile("Norm(?![a-z])")  # BatchNorm2d, LlamaRMSNorm, RMSNormGated; not NormalHead


def reparametrised(module: nn.Module, attribute: str) -> str:
    """What is computed from ``module.<attribute>`` before it is used, and how to undo that; empty for an ordinary one."""
    if isinstance(module, ParametrizationList):
        return "parametrised: call torch.nn.utils.parametrize.remove_parametrizations on its layer first"
    stem, _, tail = attribute.rpartition("_")
    if tail == "orig" and f"{stem}_mask" in module._buffers:
        return f"masked by torch.nn.utils.prune: call torch.nn.utils.prune.remove(layer, {stem!r}) first"
    if tail == "orig" and f"{stem}_u" in module._buffers:
        return f"under spectral norm: call torch.nn.utils.remove_spectral_norm(layer, {stem!r}) first"
    if tail in ("g", "v") and {f"{stem}_g", f"{stem}_v"} <= module._parameters.keys():
        return f"under weight norm: call torch.nn.utils.remove_weight_norm(layer, {stem!r}) first"
    return ""


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` normalises what passes through it, by the name of its class or of a base."""
    return any(_NORM.search(base.__name__) for base in type(module).__mro__)


def why_left(module: nn.Module, attribute: str, parameter: nn.Parameter) -> str:
    """The reason for a parameter that no rule names."""
    layer = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        return "inside a TorchScript module: prune the eager model, then script it"
    if "bias" in attribute:
        return "a bias"
    if is_norm(module):
        return "part of a normalisation"
    if is_experts(module) and attribute in stacked(module):
        return f"stacked experts; {layer} does not tell output from input: {_remedy(layer, attribute)}"
    if layer.endswith(("Router", "Gate")):
        return f"a router ({layer}): it chooses the experts"
    if parameter.ndim < 2:
        return f"a vector of {layer}, not a matrix"
    return f"{layer} is not a kind of layer known here: {_remedy(layer, attribute)}"


def _remedy(layer: str, attribute: str) -> str:
    return f"secateurs.models.declare({layer}, {attribute!r}, ...) says what it is"


def packed_weights(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """``(name, shape, reason)`` of the weights that torch's own quantised layers hold outside their parameters."""
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.ao.nn.quantized."):
            for name, shape in _packed_shapes(module).items():
                yield f"{path}.{name}".removeprefix("."), shape, "quantised and packed: prune the float model, then quantise it"


def _packed_shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    weight, weights = getattr(layer, "weight", None), getattr(layer, "get_weight", None)
    if callable(weight):
        return {"weight": tuple(weight().shape)}
    return {name: tuple(tensor.shape) for name, tensor in weights().items()} if callable(weights) else {}
