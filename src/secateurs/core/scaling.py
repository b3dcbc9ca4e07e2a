"""How the loss of a language model falls with its size and its data: ``L = E + A / N^alpha + B / D^beta``.

Hoffmann et al. 2022 (Chinchilla) for dense models. Jin et al. 2025 (The Journey Matters): one set of the five numbers fits
dense and sparse pre-training alike, if N is the number of weights in use *averaged over the training tokens*.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import BadInput

__all__ = ["ScalingLaw", "fit_scaling"]

EXPONENTS = (0.1, 0.2, 0.35, 0.6, 1.0, 1.6)  # of the starts
STARTS = 4  # of these, the best are followed to the end
_LEAST = 1e-6  # a term that a start has not, as a share of the loss: its logarithm must exist


@dataclass(frozen=True)
class ScalingLaw:
    """``L = E + A / N^alpha + B / D^beta``, in the units of the losses, of N and of D."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def __call__(self, parameters: float, tokens: float) -> float:
        """The loss of a model with ``parameters`` weights (averaged over training) after ``tokens``."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta


def fit_scaling(
    parameters: Sequence[float], tokens: Sequence[float], losses: Sequence[float], delta: float = 1e-3
) -> ScalingLaw:
    """The law that fits runs best: least sum of Huber losses (width ``delta``) of ``log L`` predicted less ``log L`` measured.

    By L-BFGS from several starts, as in Hoffmann et al. 2022 (approach 3, whose ``delta`` is 1e-3); a start is a pair of
    exponents with the best non-negative E, A and B for them. In float64: fits of the same runs agree to nine digits or so.

    Args:
        parameters: N of every run; averaged over its tokens where it changes.
        tokens: D of every run.
        losses: measured, above 0.

    Raises:
        BadInput: fewer than five runs, fewer than three different N or D, or a number that is not positive and finite.
    """
    n, d, measured = _checked(parameters, tokens, losses)
    size, length = n.log().mean(), d.log().mean()  # N and D are measured in their geometric means: five numbers near one
    x, y, target = n.log() - size, d.log() - length, measured.log()
    starts = [_start(x, y, measured, a, b) for a, b in itertools.product(EXPONENTS, EXPONENTS)]
    starts.sort(key=lambda start: float(_misfit(start, x, y, target, delta)))
    best = min((_follow(start, x, y, target, delta) for start in starts[:STARTS]), key=lambda found: found[0])[1]
    e, a, alpha, b, beta = best.tolist()
    scale_a, scale_b = a + alpha * float(size), b + beta * float(length)
    exp = [float(torch.tensor(v, dtype=torch.float64).exp()) for v in (e, scale_a, scale_b)]
    return ScalingLaw(E=exp[0], A=exp[1], alpha=alpha, B=exp[2], beta=beta)


def _checked(*columns: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    n, d, losses = (torch.tensor([float(v) for v in column], dtype=torch.float64) for column in columns)
    if not len(n) == len(d) == len(losses):
        raise BadInput(f"{len(n)} sizes, {len(d)} numbers of tokens and {len(losses)} losses: give one of each for every run")
    for what, column in (("parameters", n), ("tokens", d), ("losses", losses)):
        odd = [v for v in column.tolist() if not 0 < v < float("inf")]
        if odd:
            raise BadInput(f"{what} hold {odd[0]!r}: all are above 0 and finite")
    kinds = len(n.unique()), len(d.unique())
    if len(n) < 5 or min(kinds) < 3:
        raise BadInput(f"{len(n)} runs of {kinds[0]} sizes and {kinds[1]} numbers of tokens do not settle a law of five "
                       "numbers; give at least five runs, of three sizes and three numbers of tokens")  # fmt: skip
    return n, d, losses


def _start(x: Tensor, y: Tensor, losses: Tensor, alpha: float, beta: float) -> Tensor:
    """``(log E, log A, alpha, log B, beta)`` with the non-negative E, A, B of least squares for these exponents."""
    terms = torch.stack([torch.ones_like(x), (-alpha * x).exp(), (-beta * y).exp()], 1)
    found, least = torch.zeros(3, dtype=torch.float64), float("inf")
    for chosen in (c for k in (1, 2, 3) for c in itertools.combinations(range(3), k)):
        part = torch.linalg.lstsq(terms[:, list(chosen)], losses[:, None]).solution[:, 0]
        error = float((terms[:, list(chosen)] @ part - losses).square().sum())
        if bool((part >= 0).all()) and error < least:
            found, least = torch.zeros(3, dtype=torch.float64), error
            found[list(chosen)] = part
    logs = found.clamp(min=_LEAST * float(losses.mean())).log()
    return torch.stack([logs[0], logs[1], torch.tensor(alpha).double(), logs[2], torch.tensor(beta).double()])


def _misfit(theta: Tensor, x: Tensor, y: Tensor, target: Tensor, delta: float) -> Tensor:
    e, a, alpha, b, beta = theta
    predicted = torch.logsumexp(torch.stack([e.expand_as(x), a - alpha * x, b - beta * y]), 0)
    return torch.nn.functional.huber_loss(predicted, target, reduction="sum", delta=delta)


def _follow(start: Tensor, x: Tensor, y: Tensor, target: Tensor, delta: float) -> tuple[float, Tensor]:
    """The misfit that L-BFGS ends with, and where."""
    theta = start.clone().requires_grad_(True)
    search = torch.optim.LBFGS([theta], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-14, history_size=20,
                               line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        value = _misfit(theta, x, y, target, delta) / delta  # near one where the tolerances are meant for
        value.backward()
        return value

    with torch.enable_grad():
        search.step(closure)
    return float(_misfit(theta.detach(), x, y, target, delta)), theta.detach()
