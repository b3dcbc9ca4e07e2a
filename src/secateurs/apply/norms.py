"""RMS norms over a width that shrinks: repaired exactly, by trial.

The root mean square of ``d`` entries of which only ``d'`` are not zero is ``sqrt(d'/d)`` of the one over those. With the weight
times ``sqrt(d/d')`` and eps times ``d/d'`` the smaller norm gives what the dense one gives on entries padded with zeros.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["repair", "sharpen"]

_EPS = ("eps", "variance_epsilon", "epsilon", "norm_eps")
# the weight itself is the scale, or (Gemma) what the scale exceeds one by
_SCALES: tuple[Callable[[Tensor, float], Tensor], ...] = (lambda w, s: w * s, lambda w, s: (1 + w) * s - 1)


def repair(dense: nn.Module, smaller: nn.Module, names: Iterable[str], positions: Callable[[str], Tensor]) -> list[str]:
    """Repair those modules of ``smaller`` among ``names`` that are RMS norms; their names.

    ``positions`` gives, for a name, the entries of the width that stay. A module counts as RMS norm where one of the repairs
    makes it agree with the dense one; any other is left as it is.
    """
    done = []
    for name in names:
        before, after = _find(dense, name), _find(smaller, name)
        if before is None or after is None or isinstance(before, (nn.LayerNorm, nn.GroupNorm)):
            continue
        if getattr(after, "weight", None) is not None and after.weight.ndim == 1 and _repaired(before, after, positions(name)):
            done.append(name)
    return done


@torch.no_grad()
def sharpen(dense: nn.Module, twin: nn.Module, names: Iterable[str], positions: Callable[[str], Tensor]) -> None:
    """Undo the rounding of repaired weights in ``twin``, a float64 copy of a repaired model, so that it is compared exactly."""
    for name in names:
        before, after = _find(dense, name), _find(twin, name)
        weight, rounded = getattr(before, "weight", None), getattr(after, "weight", None)
        if not isinstance(weight, Tensor) or not isinstance(rounded, Tensor) or weight.ndim != 1:
            continue
        kept = positions(name).to(weight.device)
        for scale in _SCALES:
            exact = scale(weight.double()[kept], math.sqrt(len(weight) / len(kept)))
            if torch.equal(exact.to(weight.dtype), rounded.to(weight.dtype)):
                rounded.copy_(exact)


def _find(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


@torch.no_grad()
def _repaired(before: nn.Module, after: nn.Module, kept: Tensor) -> bool:
    weight, attribute = after.weight, next((name for name in _EPS if hasattr(after, name)), None)
    assert isinstance(weight, Tensor)
    wide = len(before.weight)  # type: ignore[arg-type]
    ratio, widths = wide / len(kept), [name for name, value in vars(after).items() if type(value) is int and value == wide]
    for scale in _SCALES:
        trial = copy.deepcopy(after)
        for name in widths:  # some check that their input has the width they remember
            setattr(trial, name, len(kept))
        trial.weight.copy_(scale(weight.double(), math.sqrt(ratio)))  # type: ignore[operator]
        if attribute is not None:
            old = getattr(before, attribute)
            eps = torch.finfo(weight.dtype).eps if old is None else old
            setattr(trial, attribute, eps * ratio)
        if _agrees(before, trial, kept):
            weight.copy_(trial.weight)  # type: ignore[arg-type]
            for name in (*widths, *([attribute] if attribute is not None else [])):
                setattr(after, name, getattr(trial, name))
            return True
    return False


def _agrees(before: nn.Module, after: nn.Module, kept: Tensor) -> bool:
    """On inputs of several sizes, small enough for eps to matter in some."""
    generator = torch.Generator().manual_seed(0)
    weight = before.weight
    assert isinstance(weight, Tensor)
    few = torch.randn(3, 4, len(kept), generator=generator) * torch.tensor([1.0, 1e-2, 1e-3])[:, None, None]
    few = few.to(weight)
    wide = few.new_zeros(3, 4, len(weight)).index_copy(-1, kept.to(few.device), few)
    try:
        expected, found = before(wide).index_select(-1, kept.to(few.device)), after(few)
    except Exception:  # the user's code, on sizes it may not expect
        return False
    close = 1e-5 if weight.dtype in (torch.float32, torch.float64) else 2e-2
    return bool(torch.allclose(found.double(), expected.double(), rtol=close, atol=1e-6))
