"""How much the loss depends on every weight tensor, from forward passes alone (ECoFLaP, Sung et al. 2024, section 3.2).

A tensor is moved a little along a random direction and back: the loss's change, over noise and batches, is a measure of the
norm of its gradient, at the memory of inference.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput, NotFinite

__all__ = ["by_magnitude", "by_square", "first_order", "slopes", "zeroth_order"]

Loss = Callable[[nn.Module, Any], Tensor]


def zeroth_order(
    model: nn.Module, parameters: Mapping[str, Tensor], batches: Collection[Any], loss: Loss,
    eps: float = 1e-3, seed: int = 0, draws: int = 1, tell: Callable[[str], None] = lambda name: None,
) -> dict[str, float]:  # fmt: skip
    """For every tensor W, by name: the sum over ``batches`` of ``|L(W + eps z) - L(W - eps z)| / (2 eps)``, z standard normal.

    Its expectation is close to ``sqrt(2 / pi)`` times the norm of d loss / dW, per batch; one draw spreads by about 75 %, so
    average over enough batches (or ``draws`` of z per batch, whose mean is taken). It costs two forward passes per tensor,
    batch and draw.

    z follows from ``seed``, the tensor's name, the batch's position and the draw. Both losses of a pair are computed in
    evaluation mode from one random state. 16-bit models are computed in float32, as ``eps`` is below their rounding: for that
    time, they take the memory of float32 copies, and floating inputs must be float32 too. The model's own tensors are never
    written to, and are put back, with modes, buffers and torch's random state, also after an error. A tensor known by several
    names is moved once, under the first.

    Args:
        model: any module.
        parameters: floating parameters of ``model``, by name.
        batches: gone through once per tensor, so a list, not an iterator.
        loss: ``loss(model, batch)``, a number; the mean of the task's loss over the batch.
        eps: the published step is 1e-3.
        seed: of the noise.
        draws: directions per batch.
        tell: called with every tensor's name when its score is known.

    Raises:
        BadInput: no batch, an iterator, or settings that cannot work.
        NotFinite: a loss is NaN or infinite; names the tensor.
    """
    found = slopes(model, parameters, batches, loss, eps, seed, draws, tell)
    return {name: math.fsum(terms) for name, terms in found.items()}


@torch.no_grad()
def slopes(
    model: nn.Module, parameters: Mapping[str, Tensor], batches: Collection[Any], loss: Loss,
    eps: float = 1e-3, seed: int = 0, draws: int = 1, tell: Callable[[str], None] = lambda name: None, first: int = 0,
) -> dict[str, list[float]]:  # fmt: skip
    """The terms of :func:`zeroth_order`, whose arguments these are: for every tensor, one per batch.

    Args:
        first: the number of the first of these batches among all. The noise follows it, so that the terms of parts are the
            terms of the whole.
    """
    _check(batches, eps, draws)
    found: dict[str, list[float]] = {}
    distinct: dict[int, tuple[str, Tensor]] = {}
    for name, p in parameters.items():
        distinct.setdefault(id(p), (name, p))
    with _kept(model, list(parameters.values())):
        for name, p in distinct.values():
            found[name] = []
            for i, batch in enumerate(batches, first):
                drawn = [_slope(model, p, batch, loss, eps, _seed(seed, name, i, k), name) for k in range(draws)]
                found[name].append(math.fsum(drawn) / draws)
            tell(name)
    return found


def _slope(model: nn.Module, p: Tensor, batch: Any, loss: Loss, eps: float, seed: int, name: str) -> float:
    before, values = p.data, []
    z = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed), dtype=p.dtype).to(p.device)
    for step in (eps, -eps):
        _reseed(seed, p.device)
        try:
            p.data = before.add(z, alpha=step)
            values.append(float(loss(model, batch)))
        finally:
            p.data = before
    if not all(map(math.isfinite, values)):
        raise NotFinite(f"the loss near {name!r} is {values[0]} and {values[1]}: nothing can be compared; look for a bad batch "
                        "or a model that overflows")  # fmt: skip
    return abs(values[0] - values[1]) / (2 * eps)


def _seed(seed: int, name: str, batch: int, draw: int) -> int:
    digest = hashlib.sha256(f"{seed}:{name}:{batch}:{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _reseed(seed: int, device: torch.device) -> None:
    """As ``torch.manual_seed``, which takes far longer (and more memory at every call) where a device is not in use."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


@contextmanager
def _kept(model: nn.Module, parameters: list[Tensor]) -> Iterator[None]:
    """Evaluation mode and at least float32 inside; afterwards the very same tensors, buffers, modes and random state."""
    tensors = list({id(t): t for t in [*model.parameters(), *parameters, *model.buffers()]}.values())
    stored = [(t, t.data) for t in tensors]
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({t.device.index for t in tensors if t.device.type == "cuda"})
    written = {id(buffer) for buffer in model.buffers()}
    try:
        model.eval()
        for t, data in stored:
            if t.is_floating_point() and torch.finfo(t.dtype).bits < 32:
                t.data = data.float()
            elif id(t) in written:
                t.data = data.clone()
        with torch.random.fork_rng(devices):
            yield
    finally:
        for t, data in stored:
            t.data = data
        for module, mode in modes:
            module.training = mode


def _check(batches: Collection[Any], eps: float, draws: int) -> None:
    if isinstance(batches, Iterator):
        raise BadInput("the batches are gone through once per tensor; give a list of them, not an iterator")
    if not len(batches):
        raise BadInput("calibration gave no batch; pass at least one, for example a list of token ids")
    if not (isinstance(eps, (int, float)) and 0 < eps < math.inf):
        raise BadInput(f"eps={eps!r}: give the step a tensor is moved by, above 0; 1e-3 is the published one")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise BadInput(f"draws={draws!r}: give a whole number of directions per batch, at least 1")


def by_magnitude(score: float, weight: Tensor) -> float:
    """``score * sum |w|``: the paper's variant that weighs the slope by the tensor's magnitude."""
    return score * float(weight.detach().abs().sum(dtype=torch.float64))


def by_square(score: float, weight: Tensor) -> float:
    """``score^2 * sum w^2``: its second-order variant."""
    return score**2 * float(weight.detach().double().square().sum())


def first_order(weight: Tensor, gradient: Tensor, square: bool = False) -> float:
    """Its first-order rival: ``sum |w| g`` of the batches' mean ``g = |dL/dw|``, or ``sum w^2 g`` of the mean of its square."""
    size = weight.detach().double().abs()
    return float(((size.square() if square else size) * gradient.double()).sum())
