"""The inverse empirical Fisher matrix of a model's weights, from the gradients of small batches taken one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.fisher import Estimate, Inverse, exact_update, summed_update
from secateurs.core.fisher_blocks import BlockSums
from secateurs.core.fisher_factors import GradientRows
from secateurs.errors import BadInput, NotFinite
from secateurs.statistics.magnitudes import differentiable, single_samples

__all__ = ["Fisher", "InverseFisher", "inverse_fisher", "minibatches"]


class InverseFisher:
    """The inverse for named weights of the given shapes, which lie one after the other in ``inverse``."""

    def __init__(self, shapes: Mapping[str, torch.Size], inverse: Inverse):
        self._shapes, self.inverse = dict(shapes), inverse
        self._places: dict[str, slice] = {}
        at = 0
        for name, shape in self._shapes.items():
            self._places[name] = slice(at, at + shape.numel())
            at += shape.numel()

    def diagonal(self, name: str) -> Tensor:
        """``[F^-1]_qq`` of a weight, in its shape."""
        return self.inverse.diagonal[self._places[name]].view(self._shapes[name])

    def compensated(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor], *, exact: bool = False,
                    scale: float = 1.0) -> dict[str, Tensor]:  # fmt: skip
        """The weights after the update that makes up for those that ``masks`` (True = kept) take away, which become zero.

        Args:
            values: by name, as they were when the gradients were taken; weights that are not there keep what they have.
            masks: of these.
            exact: the best update for all of them together, instead of the sum of what is best for each.
            scale: multiplies the update.
        """
        weight = torch.zeros_like(self.inverse.diagonal)
        removed = torch.zeros_like(weight, dtype=torch.bool)
        for name, value in values.items():
            weight[self._places[name]] = value.reshape(-1).to(weight.dtype)
            removed[self._places[name]] = ~masks[name].reshape(-1)
        update = (exact_update if exact else summed_update)(weight, removed, self.inverse)
        new = (weight + scale * update).masked_fill_(removed, 0)
        return {n: new[self._places[n]].view(value.shape).to(value.dtype) for n, value in values.items()}


@dataclass(frozen=True)
class Fisher:
    """What criteria and methods know of one weight: ``whole(estimate)`` is the inverse for all of them."""

    name: str
    whole: Callable[[Estimate], InverseFisher]

    def diagonal(self, estimate: Estimate) -> Tensor:
        """Of the inverse, in the weight's shape."""
        return self.whole(estimate).diagonal(self.name)


def inverse_fisher(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    estimate: Estimate,
    *,
    masks: Mapping[str, Tensor] | None = None,
    mean: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> InverseFisher:
    """The inverse of the dampened empirical Fisher matrix of ``parameters``.

    The model runs in evaluation mode and nothing of it changes. Its first ``gradients * samples`` examples count, in their
    order; no more of ``batches`` is read. Weights that are zero or masked count as pruned: their gradients are taken for zero.
    Gradients are kept in the parameters' precision, float32 at the least.

    For P weights, N gradients and blocks of c the memory is ``8 P c`` bytes where c is at most N / 2 or 32, and ``4 N P``
    otherwise; the work, besides N backward passes, about ``2 N c P`` or ``3 N^2 P`` multiply-adds.

    Args:
        masks: True = kept; of weights without one all are.
        mean: of a gradient over processes that have examples of their own: one of m samples in each of K is one of m K.
        seed: of shuffled loaders.

    Raises:
        BadInput: there are too few examples, a parameter in float16, or one that the loss does not depend on.
        NotFinite: a gradient is NaN or infinite.
        NotPositiveDefinite: the damping is lost beside the gradients.
    """
    _check_dtypes(parameters)
    sums, reached = _accumulator(parameters, estimate), set[str]()
    with differentiable(model, parameters), torch.random.fork_rng(_cuda(parameters)), torch.enable_grad():
        torch.manual_seed(seed)
        for number, batch in enumerate(_enough(batches, estimate)):
            found = _gradients(loss(model, batch), parameters)
            reached |= found.keys()
            row = torch.cat([_alive(found.get(n), p, (masks or {}).get(n)) for n, p in parameters.items()])
            row = mean(row) if mean else row
            _check_finite(row, parameters, number)
            sums.add(row)
    for name in parameters:
        if name not in reached:
            raise BadInput(f"the loss does not depend on {name!r}, so it has no gradient; exclude it, or give batches that "
                           "use it")  # fmt: skip
    return InverseFisher({n: p.shape for n, p in parameters.items()}, sums.inverse())


def minibatches(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """The examples of ``batches`` in their order, ``size`` at a time, across the edges of batches; a rest is left out.

    Raises:
        BadInput: examples that come together have tensors of different shapes.
    """
    held: list[Any] = []
    for sample in single_samples(batches):
        held.append(sample)
        if len(held) == size:
            yield _joined(held)
            held = []


def _enough(batches: Iterable[Any], estimate: Estimate) -> Iterator[Any]:
    """As many small batches as the estimate wants."""
    number = 0
    for number, batch in enumerate(minibatches(batches, estimate.samples), 1):
        yield batch
        if number == estimate.gradients:
            return
    raise BadInput(f"a Fisher matrix of gradients={estimate.gradients}, each of samples={estimate.samples}, takes "
                   f"{estimate.gradients * estimate.samples} examples, and the batches given have fewer than "
                   f"{(number + 1) * estimate.samples}: give more (calibration= of sc.prune, data= of a Pruner), or ask for "
                   f"fewer, as in options={{'gradients': {max(1, number)}}}")  # fmt: skip


def _accumulator(parameters: Mapping[str, Tensor], estimate: Estimate) -> BlockSums | GradientRows:
    """Blocks as matrices where they take no more room than the gradients, or than 64 of them."""
    first = next(iter(parameters.values()))
    sizes = [p.numel() for p in parameters.values()]
    dtype = torch.float32
    for p in parameters.values():
        dtype = torch.promote_types(dtype, p.dtype)
    short = estimate.block and 2 * min(estimate.block, max(sizes)) <= max(estimate.gradients, 64)
    return (BlockSums if short else GradientRows)(sizes, estimate, dtype, first.device)


def _gradients(value: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}


@torch.no_grad()
def _alive(gradient: Tensor | None, weight: Tensor, mask: Tensor | None) -> Tensor:
    """A gradient as a vector in float32 or better, zero where the weight is pruned."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    if gradient is None:
        return torch.zeros(weight.numel(), dtype=dtype, device=weight.device)
    alive = weight != 0 if mask is None else mask & (weight != 0)
    return torch.where(alive, gradient.to(dtype), torch.zeros_like(gradient, dtype=dtype)).reshape(-1)


def _check_finite(row: Tensor, parameters: Mapping[str, Tensor], number: int) -> None:
    if bool(torch.isfinite(row).all()):
        return
    for (name, _), part in zip(parameters.items(), row.split([p.numel() for p in parameters.values()]), strict=True):
        if not bool(torch.isfinite(part).all()):
            raise NotFinite(f"gradient {number} of {name!r} has entries that are NaN or infinite: look for a diverged run, a "
                            "loss that overflows or a bad batch before pruning")  # fmt: skip


def _joined(samples: list[Any]) -> Any:
    """Batches of one as one batch."""
    first = samples[0]
    if isinstance(first, Tensor):
        if first.dim() == 0:
            return first
        if len({s.shape[1:] for s in samples}) > 1:
            raise BadInput("examples of different shapes cannot be one batch: give samples=1, or pad them alike")
        return torch.cat(samples)
    if isinstance(first, Mapping):
        return {key: _joined([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        return type(first)(_joined(list(each)) for each in zip(*samples, strict=True))
    return first


def _check_dtypes(parameters: Mapping[str, Tensor]) -> None:
    for name, p in parameters.items():
        if p.dtype == torch.float16:
            raise BadInput(f"{name!r} is in float16, where small gradients are lost: convert the model first, with "
                           "model.float() or model.bfloat16()")  # fmt: skip


def _cuda(parameters: Mapping[str, Tensor]) -> list[int]:
    return sorted({p.device.index for p in parameters.values() if p.device.type == "cuda"})
