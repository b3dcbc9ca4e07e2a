"""Criteria: how a weight is judged. Pure functions (weight, statistics) -> scores of the weight's shape; higher = keep.

A criterion declares the statistics it needs by name; whoever runs it supplies them, in a shape that broadcasts to the weight's:

- ``fisher``: an object whose ``diagonal(estimate)`` is that of the inverse Fisher matrix, for a
  :class:`secateurs.core.fisher.Estimate`.
- ``gradient``: of the loss to the weight, the mean over batches.
- ``hessian-gradient``: ``H g`` of the loss: how half the squared norm of its gradient changes with the weights.
- ``noise``: uniform in [0, 1), drawn from a seed and the weight's name, so it is the same on every device and worker.
- ``norms``: of the layer's inputs, ``sqrt(sum of x_j^2 over calibration tokens / number of sequences)``, laid along the
  weight's input dimension: ``[in]`` for ``[out, in]``, ``[in, 1]`` for ``[in, out]``, ``[experts, 1, in]`` for stacked experts.
- ``gradient-magnitude``, ``gradient-magnitude-l2``: over sequences, the sum of ``|g|``, and the root of the sum of ``g^2``, of
  the unpruned model. Neither is divided by their number.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateurs.core.fisher import Estimate, obs_statistic
from secateurs.errors import BadInput, near

__all__ = ["CRITERIA", "Criterion", "find_criterion", "gblm", "gradient_magnitude", "noise", "obs"]

Statistics = Mapping[str, Any]


@dataclass(frozen=True)
class Criterion:
    """A scoring rule and the names of the statistics it needs.

    ``blocks``, where there is one, judges whole blocks of a layer's columns at once, ``(matrix [out, in], gram [in, in], int64
    [size, per]) -> [size]``; of coupled groups then the consumers are judged, each by the columns that an index takes away.
    """

    name: str
    needs: frozenset[str]
    score: Callable[[Tensor, Statistics], Tensor]
    blocks: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


def _zeros_lowest(weight: Tensor, scores: Tensor) -> Tensor:
    """Rank weights that are already zero below all others, keeping their own order: they count as pruned, not as candidates.

    Maps the non-negative scores of zeros to [-1, 0), increasing; one that is not finite stays what it is.
    """
    return torch.where((weight == 0) & torch.isfinite(scores), -1 / (1 + scores), scores)


def magnitude(weight: Tensor, statistics: Statistics) -> Tensor:
    """``|w|``."""
    return weight.abs()


def random(weight: Tensor, statistics: Statistics) -> Tensor:
    """Noise, whatever the weight; weights already zero first."""
    return _zeros_lowest(weight, statistics["noise"])


def gradient(weight: Tensor, statistics: Statistics) -> Tensor:
    """``|g|``, the loss's slope; weights already zero first."""
    return _zeros_lowest(weight, statistics["gradient"].abs())


def taylor(weight: Tensor, statistics: Statistics) -> Tensor:
    """``|w g|``: first-order change of the loss when w goes; at initialisation SNIP's connection sensitivity (Lee et al. 2019).

    Weights already zero go first, before others that no gradient reaches. 16-bit floats are multiplied as float32: their
    products fall below the smallest 16-bit number.
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    return _zeros_lowest(weight, (weight.to(exact) * statistics["gradient"].to(exact)).abs())


def grasp(weight: Tensor, statistics: Statistics) -> Tensor:
    """``w (H g)``: to first order half of what the squared norm of the gradient loses when w goes (Wang et al. 2020, GraSP).

    Kept is what the gradient flow needs: the paper removes the largest ``-w (H g)``. Weights already zero go first.
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    scores = weight.to(exact) * statistics["hessian-gradient"].to(exact)
    return torch.where((weight == 0) & torch.isfinite(scores), torch.finfo(exact).min, scores)


def wanda(weight: Tensor, statistics: Statistics) -> Tensor:
    """``|w_ij| * ||x_j||``, magnitude times the norm of the weight's input (Sun et al. 2023); weights already zero first."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    return _zeros_lowest(weight, weight.to(exact).abs() * statistics["norms"].to(exact))


def gblm(scale: float = 100.0, norm: str = "l1") -> Criterion:
    """``|w_ij| * ||x_j|| + c |w_ij| G_ij``, Wanda's score and a first-order term (Das et al. 2023, GBLM-Pruner).

    ``scale`` is c. What it amounts to depends on the number of sequences, their length and the loss's reduction: compare only
    runs that have these in common. ``norm`` says how G sums the sequences' gradients, ``"l1"`` or ``"l2"``.

    Raises:
        BadInput: another norm, or a scale that is negative or not finite.
    """
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 <= scale < math.inf:
        raise BadInput(f"scale={scale!r}: the gradient term's factor is a number, 0 or more; 100 is the published one")
    name = _gradient_statistic(norm)
    return Criterion("gblm", frozenset({"norms", name}), functools.partial(_gblm, name=name, scale=float(scale)))


def _gblm(weight: Tensor, statistics: Statistics, name: str, scale: float) -> Tensor:
    exact = torch.promote_types(weight.dtype, torch.float32)
    size = weight.to(exact).abs()
    scores = size * statistics["norms"].to(exact)
    return _zeros_lowest(weight, scores + size * (scale * statistics[name].to(exact)) if scale else scores)


def gradient_magnitude(norm: str = "l1") -> Criterion:
    """``|w| G`` with G as in :func:`gblm`: the gradient term alone, the control of that paper."""
    name = _gradient_statistic(norm)
    return Criterion("gradient-magnitude", frozenset({name}), functools.partial(_gradient_magnitude, name=name))


def _gradient_magnitude(weight: Tensor, statistics: Statistics, name: str) -> Tensor:
    exact = torch.promote_types(weight.dtype, torch.float32)
    return _zeros_lowest(weight, weight.to(exact).abs() * statistics[name].to(exact))


def obs(gradients: int = 400, samples: int = 1, block: int = 2000, damping: float = 1e-5) -> Criterion:
    """``w^2 / (2 [F^-1]_qq)`` with an empirical Fisher matrix F: optimal brain surgeon (Singh & Alistarh 2020).

    It is the loss that removing one weight costs when the others make up for it; with blocks of one weight, OBD's
    ``w^2 F_qq / 2``. Weights already zero go first. The options are those of :class:`secateurs.core.fisher.Estimate`.
    """
    estimate = Estimate(gradients, samples, block, damping)
    return Criterion("obs", frozenset({"fisher"}), functools.partial(_obs, estimate=estimate))


def _obs(weight: Tensor, statistics: Statistics, estimate: Estimate) -> Tensor:
    exact = torch.promote_types(weight.dtype, torch.float32)
    scores = obs_statistic(weight.to(exact), statistics["fisher"].diagonal(estimate))
    return _zeros_lowest(weight, scores.to(exact))


def _gradient_statistic(norm: str) -> str:
    names = {"l1": "gradient-magnitude", "l2": "gradient-magnitude-l2"}
    if norm not in names:
        raise BadInput(f"norm={norm!r}: gradients of several sequences are added up by 'l1' or 'l2'")
    return names[norm]


_WITH_OPTIONS: dict[str, Callable[..., Criterion]] = {"gblm": gblm, "gradient-magnitude": gradient_magnitude, "obs": obs}

CRITERIA = {
    c.name: c
    for c in (
        Criterion("magnitude", frozenset(), magnitude),
        Criterion("random", frozenset({"noise"}), random),
        Criterion("gradient", frozenset({"gradient"}), gradient),
        Criterion("taylor", frozenset({"gradient"}), taylor),
        Criterion("grasp", frozenset({"hessian-gradient"}), grasp),
        Criterion("wanda", frozenset({"norms"}), wanda),
        *(make() for make in _WITH_OPTIONS.values()),
    )
}


def find_criterion(name: str, **options: object) -> Criterion:
    """The criterion called ``name`` with its options; :class:`BadInput` lists the known ones."""
    if name not in CRITERIA:
        raise BadInput(f"criterion={name!r} is unknown; use one of {', '.join(CRITERIA)}" + near(name, CRITERIA))
    known = list(inspect.signature(_WITH_OPTIONS[name]).parameters) if name in _WITH_OPTIONS else []
    for option in options:
        if option not in known:
            takes = f"its options are {', '.join(known)}" if known else "it has none"
            raise BadInput(f"criterion={name!r} has no option {option!r}; {takes}" + near(option, known))
    return _WITH_OPTIONS[name](**options) if options else CRITERIA[name]


def noise(seed: int, name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform float32 noise in [0, 1) that depends on ``seed`` and ``name`` alone (drawn on the CPU, then moved)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.rand(shape, generator=generator).to(device)
