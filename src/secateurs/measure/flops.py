"""Multiply-adds of one forward pass, dense and counting non-zero weights only.

Every weight entry of a layer takes part in the same number of multiply-adds, its *uses*: one per output position of a
convolution, one per token of a linear layer. So the dense count is ``entries x uses`` and the sparse one
``non-zeros x uses`` (the theoretical speed-up of ShrinkBench, Blalock et al. 2020). Biases, activations and
normalisation are not counted. These are counts, not times: measure latency beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateurs.measure.mode import evaluating
from secateurs.measure.operators import Unknown, operator_counter
from secateurs.measure.uses import Work, rule_of

__all__ = ["Flops", "LayerFlops", "multiply_adds"]


@dataclass(frozen=True)
class LayerFlops:
    """Multiply-adds of one layer over the whole forward pass, however often it was called."""

    name: str
    type: str
    dense: int
    nonzero: int


@dataclass(frozen=True)
class Flops:
    """Multiply-adds of one forward pass (one multiply-add is two floating-point operations)."""

    layers: tuple[LayerFlops, ...]
    outside: int
    """Matrix products and convolutions done outside the layers listed, by functional calls: attention scores, a layer of
    the user's own. Counted dense, as nothing is known of their weights."""
    uncounted: dict[str, tuple[str, ...]]
    """Names of the modules that own parameters and have no rule, by type. Their matrix products, if any, are in
    ``outside``; element-wise work (norms) is not counted at all."""
    never_called: tuple[str, ...]
    """Layers with a rule whose forward was never called: unused, or used by a functional call and then in ``outside``."""
    unknown_operators: tuple[str, ...]
    """Operators outside the layers listed that look like matrix products, or are not PyTorch's own, and have no formula:
    what they do is missing from every count here."""

    @property
    def dense(self) -> int:
        """Multiply-adds of the dense forward pass."""
        return self.outside + sum(layer.dense for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Multiply-adds with a non-zero weight."""
        return self.outside + sum(layer.nonzero for layer in self.layers)

    @property
    def theoretical_speedup(self) -> float:
        """Dense over non-zero multiply-adds. No kernel is promised to reach it."""
        return self.dense / self.nonzero if self.nonzero else math.inf


def multiply_adds(model: nn.Module, *inputs: Any, **named: Any) -> Flops:
    """Count the multiply-adds of ``model(*inputs, **named)``, run once in evaluation mode without gradients.

    The counts are of the whole batch given. The model is left as it was: training flags, hooks and gradients.
    """
    tally = _Tally(operator_counter())
    unknown = Unknown(tally.counter, inside=tally.entered)
    with evaluating(model), _hooked(model, tally), _unfused_attention(), unknown, tally.counter:
        model(*inputs, **named)
    outside = (tally.counter.get_total_flops() - tally.inside) // 2
    rows, operators = tuple(tally.rows.values()), tuple(sorted(unknown.names))
    return Flops(rows, outside, _uncounted(model), _never_called(model, tally), operators)


@dataclass
class _Tally:
    counter: Any  # sees every matrix product that reaches the dispatcher, inside a counted layer or not
    rows: dict[str, LayerFlops] = field(default_factory=dict)
    inside: int = 0  # the floating-point operations it saw inside counted layers
    entered: list[int] = field(default_factory=list)

    def enter(self, module: nn.Module, inputs: Any) -> None:
        self.entered.append(self.counter.get_total_flops())

    def leave(self, name: str, module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        before = self.entered.pop()
        if not self.entered:  # a counted layer inside another one is already in the outer one's share
            self.inside += self.counter.get_total_flops() - before
        rule = rule_of(module)
        assert rule is not None  # only layers with a rule carry this hook
        dense, nonzero = _count(rule(module, inputs, named, output))
        row = self.rows.get(name, LayerFlops(name, type(module).__name__, 0, 0))
        self.rows[name] = LayerFlops(name, row.type, row.dense + dense, row.nonzero + nonzero)


def _count(work: Work) -> tuple[int, int]:
    dense = sum(weight.numel() * uses for weight, uses in work.weights)
    nonzero = sum(int(torch.count_nonzero(weight)) * uses for weight, uses in work.weights)
    return dense + work.weightless, nonzero + work.weightless


@contextmanager
def _hooked(model: nn.Module, tally: _Tally) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if rule_of(module) is not None:
            handles.append(module.register_forward_pre_hook(tally.enter))
            handles.append(module.register_forward_hook(partial(tally.leave, name), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Fused kernels off: the fused encoder layer calls no sub-module, and fused attention hides its matrix products."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _inside_counted(model: nn.Module) -> set[str]:
    """Names below a counted layer (the output projection of an attention module, a parametrization's original)."""
    roots = [(name, module) for name, module in model.named_modules() if rule_of(module) is not None]
    below = ((name, child) for name, module in roots for child, _ in module.named_modules() if child)
    return {f"{name}.{child}" if name else child for name, child in below}


def _uncounted(model: nn.Module) -> dict[str, tuple[str, ...]]:
    inside, found = _inside_counted(model), dict[str, tuple[str, ...]]()
    for name, module in model.named_modules():
        if name not in inside and rule_of(module) is None and next(module.parameters(recurse=False), None) is not None:
            kind = type(module).__name__
            found[kind] = (*found.get(kind, ()), name)
    return found


def _never_called(model: nn.Module, tally: _Tally) -> tuple[str, ...]:
    skip = _inside_counted(model) | tally.rows.keys()
    return tuple(name for name, module in model.named_modules() if rule_of(module) is not None and name not in skip)
