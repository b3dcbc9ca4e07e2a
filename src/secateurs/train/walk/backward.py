"""Sums of single samples' gradients for a model of which one block is in memory at a time.

The forward pass goes from block to block and keeps what each gives. The backward pass goes the other way: a block is run once
more, with gradients, on what the kept outputs make of its inputs; the gradient of its outputs is sent through it, its weights'
gradients are added up, and the gradients of the outputs it was fed by are kept for the blocks that gave them. The kept outputs
are the leaves of every such piece of the graph, so the layers between the blocks need no care, and a decoder's gradient reaches
the encoder whose states it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from secateurs.errors import BadInput
from secateurs.measure.mode import evaluating
from secateurs.models import Survey, Weight, unwrap
from secateurs.statistics import GradientSums
from secateurs.train.walk.experts import eager_experts
from secateurs.train.walk.replay import Replay
from secateurs.train.walk.route import Route, find_route
from secateurs.train.walk.state import digest_of_batches
from secateurs.train.walk.store import Store, hollow
from secateurs.train.walk.sums import SavedSums
from secateurs.train.walk.walking import Progress, Resident, Source, no_cache

__all__ = ["gradient_sums_by_block"]

#: ``loss(model, sample)``, a number.
Loss = Callable[[nn.Module, Any], Tensor]


def gradient_sums_by_block(
    model: nn.Module,
    chosen: Survey,
    samples: Iterable[Any],
    loss: Loss,
    want: str,
    folder: str | Path,
    *,
    blocks: str | Sequence[str] = (),
    keep: str | None = None,
    budget: int | None = None,
    scratch: str | Path | None = None,
    source: Source | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> SavedSums:
    """Sums over ``samples`` of what the loss's gradient is by each of the ``chosen`` weights, one block at a time.

    They are those of :func:`secateurs.statistics.gradient_sums` up to rounding, in float32, for the weights inside the blocks.
    Every block is read twice. A run that was killed keeps the sums that are finished, and a further one takes them from there.

    Args:
        model: in any mode; it runs in evaluation mode without caches, and is as before afterwards.
        samples: batches of one example (:func:`secateurs.statistics.single_samples`), kept in memory.
        loss: ``loss(model, sample)``.
        want: ``"absolute"`` for the sum of ``|g|``, ``"squared"`` for that of ``g^2``, ``"total"`` for that of ``g``.
        folder: a new one for the sums, or that of an earlier run.
        blocks, keep, budget, scratch, source, seed: as in :func:`secateurs.train.walk.walk`.
        progress: called after every block of the backward pass.

    Raises:
        BadInput: no sample; the loss does not depend on a weight; a block is called more than once in a forward, whose
            gradients would have to be added before their magnitudes are; a model uses block outputs further back than it was
            told to ``keep``.
    """
    given, inner, source = list(samples), unwrap(model), source or Resident()
    if not given:
        raise BadInput("calibration gave no batch; pass at least one")
    route = find_route(inner, chosen, blocks)
    identity = {"blocks": [stop.name for stop in route.stops], "want": want, "seed": seed, "keep": keep,
                "calibration": digest_of_batches(given)}  # fmt: skip
    sums = SavedSums(folder, identity)
    if all(weight.name in sums for weight in route.weights):
        return sums
    with ExitStack() as stack:
        for context in (evaluating(inner), no_cache(inner), eager_experts(inner), _gradients_for_none(inner)):
            stack.enter_context(context)
        cuts = _Cuts(budget, scratch)
        stack.enter_context(cuts)
        value = _Kept(loss)
        replay = Replay(inner, {stop.name: stop.module for stop in route.stops}, given, value, cuts, seed)
        if source.resident:
            route = route.through(replay.order())
        ends = None if keep == "all" else route.ends
        _Passes(route, replay, len(given), cuts, source, value, ends, sums).run(want, progress)
    return sums


class _Kept:
    """A loss as a model's forward: what it gave last is kept."""

    def __init__(self, loss: Loss):
        self._loss = loss
        self.value: Tensor | None = None

    def __call__(self, model: nn.Module, sample: Any) -> None:
        """Compute it."""
        self.value = self._loss(model, sample)


class _Cuts(Store):
    """Outputs of blocks by (sample, block, call), and the gradients by them.

    With gradients on, what is asked for becomes the leaves of the graph. Only outputs of the blocks that are ``near`` have
    entries, of others shapes are handed out; None: all have.
    """

    near: Sequence[str] | None = None

    def __init__(self, budget: int | None, scratch: str | Path | None):
        super().__init__(budget, scratch)
        self._shapes: dict[Hashable, Any] = {}
        self._leaves: list[tuple[tuple[int, str], int, Tensor]] = []

    def keep(self, index: int, name: str, output: Any) -> None:
        """Keep what a block gave for a sample."""
        self.put((index, name, 0), output)
        self._shapes[index, name, 0] = hollow(output)

    def get(self, key: Any) -> Any:
        """The output of ``key``."""
        index, name, _ = key
        if self.near is not None and name not in self.near:
            return self._shapes[key]
        value = super().get(key)
        if not torch.is_grad_enabled():
            return value
        parts, spec = tree_flatten(value)
        for place, part in enumerate(parts):
            if _differentiable(part):
                self._leaves.append(((index, name), place, part.requires_grad_()))
                parts[place] = part.clone()  # which the model may write into
        return tree_unflatten(parts, spec)

    def collect(self) -> None:
        """Add the gradients of the leaves to those of the blocks that gave them, and start anew."""
        found: dict[tuple[int, str], dict[int, Tensor]] = {}
        for owner, place, leaf in self._leaves:
            if leaf.grad is not None:
                found.setdefault(owner, {})[place] = leaf.grad
        self._leaves.clear()
        for owner, gradients in found.items():
            before = self.gradients(*owner)
            self.put(("gradient", *owner), before | {k: before[k] + g if k in before else g for k, g in gradients.items()})

    def gradients(self, index: int, name: str) -> dict[int, Tensor]:
        """The gradients by what a block gave, by their place among it."""
        key = ("gradient", index, name)
        found: dict[int, Tensor] = super().get(key) if key in self else {}
        return found

    def let_go(self, index: int, name: str) -> None:
        """Forget what a block gave, and the gradients by it."""
        self.drop((index, name, 0))
        self.drop(("gradient", index, name))


@dataclass
class _Passes:
    """Forward through all blocks, and backward."""

    route: Route
    replay: Replay
    samples: int
    cuts: _Cuts
    source: Source
    loss: _Kept
    ends: Sequence[str] | None
    sums: SavedSums

    def run(self, want: str, progress: Progress | None) -> None:
        """Sum what ``want`` names."""
        stops = self.route.stops
        for name in (name for name, calls in self.replay.calls.items() if calls > 1):
            raise BadInput(f"block {name!r} is called more than once in a forward, so its gradients cannot be summed by block")
        names = [stop.name for stop in stops]
        with self.source.outside(names):
            for index in range(len(stops)):
                self._forward(index)
            self._look_back(len(stops))
            for i in range(self.samples):
                self._from_the_loss(i)
        with self.source.outside(names):  # anew: the layers after the blocks are not needed any more
            for index in reversed(range(len(stops))):
                self._backward(index, want)
                if progress is not None:
                    progress(len(stops) - index, len(stops), stops[index].name)

    def _forward(self, index: int) -> None:
        stop = self.route.stops[index]
        self._look_back(index)
        self.source.open(stop.name, stop.module)
        for i in range(self.samples):
            for output in self.replay.run(i, stop.name):
                self.cuts.keep(i, stop.name, output)
        self.source.close(stop.name, stop.module)

    def _look_back(self, index: int) -> None:
        """Hand out what the blocks before number ``index`` gave."""
        names = [stop.name for stop in self.route.stops[:index]]
        self.replay.finished = names
        self.cuts.near = None if self.ends is None else [*names[-1:], *self.ends]

    def _from_the_loss(self, i: int) -> None:
        with torch.enable_grad():
            self.replay.run(i, "")
            value, self.loss.value = self.loss.value, None
            if value is None or not value.requires_grad:
                raise BadInput("the loss does not depend on what the model's blocks give, so their weights have no gradients")
            value.backward()
        self.cuts.collect()

    def _backward(self, index: int, want: str) -> None:
        stop = self.route.stops[index]
        self._look_back(index)
        self.source.open(stop.name, stop.module)
        weights = [weight for weight in stop.weights if weight.name not in self.sums]
        found = {weight.name: GradientSums(weight.parameter.shape, [want]) for weight in weights}
        with _adding(weights, found):
            for i in range(self.samples):
                self._through(i, stop.name)
                self.cuts.let_go(i, stop.name)
        for weight in weights:
            self.sums.save(weight, found.pop(weight.name), want)
        self.source.close(stop.name, stop.module)

    def _through(self, i: int, name: str) -> None:
        """Send the gradients by what a block gave for a sample through the block."""
        gradients = self.cuts.gradients(i, name)
        if not gradients:
            return
        with torch.enable_grad():
            (output,) = self.replay.run(i, name)
            parts = tree_flatten(output)[0]
            met = [(parts[place], gradient) for place, gradient in gradients.items() if parts[place].requires_grad]
            if met:
                torch.autograd.backward([part for part, _ in met], [gradient for _, gradient in met])
        self.cuts.collect()



def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not value.is_meta


@contextmanager
def _adding(weights: Sequence[Weight], sums: Mapping[str, GradientSums]) -> Iterator[None]:
    """Inside, a weight's gradient is added to its sums, and let go, the moment it is complete."""

    def adder(one: GradientSums) -> Callable[[Tensor], None]:
        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            one.update(parameter.grad)
            parameter.grad = None

        return add

    with ExitStack() as hooks:
        for weight in weights:
            hooks.callback(weight.parameter.requires_grad_(True).requires_grad_, False)
            hooks.callback(weight.parameter.register_post_accumulate_grad_hook(adder(sums[weight.name])).remove)
        yield


@contextmanager
def _gradients_for_none(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter wants a gradient; afterwards those do that did."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)
