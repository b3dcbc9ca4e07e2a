"""Modules that structures cannot be removed from as they are, or not everywhere; all take ``[N, 6]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

__all__ = ["PROGRAMS", "REFUSED", "Clipped", "Net", "ordered"]


class Net(nn.Module):
    """Two layers with ``between`` applied to what passes from one to the other."""

    def __init__(self, between: Callable[[Tensor], Any] = torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.between = nn.Linear(6, 8), nn.Linear(8, 3), between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(x)))


def layers(change: Callable[[nn.Module], Any]) -> nn.Sequential:
    """A plain network of which ``change`` was done to the first layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    change(model[0])
    return model


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Clipped(torch.autograd.Function):
    """A custom function that the exporter sees through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


class Foreign(Clipped):
    """One that leaves torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy().clip(0))


@torch.library.custom_op("unprunable::ordered", mutates_args=())
def ordered(x: Tensor) -> Tensor:
    return x.sort(-1).values


@ordered.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def branch(h: Tensor) -> Tensor:
    if h.sum() > 0:
        return 2 * h
    return h


def quantised() -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(layers(lambda _: None), {nn.Linear}, torch.qint8)


#: name -> (what builds it, what the message must say)
REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "control flow": (lambda: Net(branch), ("cannot trace this Net", "data-dependent", "if h.sum() > 0", "torch.where")),
    "item": (lambda: Net(lambda h: h * int(h.max().item())), ("cannot trace", "item()", "unprunable.py")),
    "numpy": (lambda: Net(lambda h: torch.from_numpy(h.detach().numpy())), ("cannot trace", ".numpy()", "custom_op")),
    "custom function": (lambda: Net(Foreign.apply), ("cannot trace", "x.detach().numpy()", "torch.library.custom_op")),
    "custom operator": (lambda: Net(ordered), ("everything is frozen", "no rule for unprunable::ordered")),
    "positions": (lambda: Net(lambda h: h + torch.arange(h.shape[1])), ("everything is frozen", "its positions are numbered")),
    "one layer": (lambda: nn.Linear(6, 3), ("everything is frozen", "the model returns it", "an input of the model")),
    "weight norm": (lambda: layers(parametrizations.weight_norm), ("'0.parametrizations", "remove_parametrizations")),
    "old weight norm": (lambda: layers(nn.utils.weight_norm), ("'0.weight_g'", "remove_weight_norm")),
    "spectral norm": (lambda: layers(parametrizations.spectral_norm), ("'0.parametrizations", "remove_parametrizations")),
    "old spectral norm": (lambda: layers(nn.utils.spectral_norm), ("'0.weight_orig'", "remove_spectral_norm")),
    "parametrised": (lambda: layers(lambda m: parametrize.register_parametrization(m, "weight", Doubled())),
                     ("'0.parametrizations.weight.original'", "remove_parametrizations")),
    "masked": (lambda: layers(lambda m: prune.l1_unstructured(m, "weight", 0.5)), ("'0.weight_orig'", "prune.remove")),
    "quantised": (quantised, ("'0.weight'", "prune the float model")),
    "scripted": (lambda: torch.jit.script(layers(lambda _: None)), ("TorchScript", "prune the eager model")),
    "meta": (lambda: layers(lambda m: m.to("meta")), ("'0.weight'", "meta device")),
}  # fmt: skip

#: What is cut by the traced program, since the code reads the width: name -> (what builds it, what ``why`` says)
PROGRAMS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a fixed width": (lambda: Net(lambda h: F.pad(h, (0, 8 - h.shape[1]))), "its own code fails on the smaller sizes"),
    "a mean": (lambda: Net(lambda h: h - h.sum(-1, keepdim=True) / h.shape[-1]), "differ from the traced program's"),
}
