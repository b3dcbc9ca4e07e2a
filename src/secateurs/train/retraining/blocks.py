"""Block reconstruction (Zimmer et al. 2023, "PERP"): a pruned block learns to give what it gave when it was dense.

For every block ``||block_pruned(x) - block_dense(x)||^2`` is minimised over a small part of its parameters, where x is what
the preceding blocks, pruned and reconstructed already, give it, and the targets come from its dense weights on the same x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from secateurs.errors import BadInput, NotFinite
from secateurs.train.retraining.placing import How, Placed, place
from secateurs.train.walk import Block, Runs

__all__ = ["BlockReconstruction", "BlockRetraining", "Retrains"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class BlockRetraining:
    """How a block is reconstructed.

    Attributes:
        how: what trains in a block, where it has it.
        steps: of AdamW without weight decay, each on one calibration batch; the batches come in a new order every time round.
        lr: highest learning rate; it rises over the share ``warmup`` of the steps and falls linearly to 0.
    """

    how: How
    steps: int = 100
    lr: float = 5e-4
    warmup: float = 0.1


@runtime_checkable
class Retrains(Protocol):
    """A method of calibration whose blocks are reconstructed once they are pruned."""

    def block_retraining(self) -> BlockRetraining | None:
        """How; None for not at all."""


class BlockReconstruction:
    """Reconstructs the blocks of a walk, each seen before and after it is pruned.

    A block whose output error on the calibration batches does not fall is left as it was pruned. A single layer of which the
    bias alone trains is solved in closed form: ``bias += mean(dense output - pruned output)``.
    """

    def __init__(self, wanted: BlockRetraining, seed: int):
        self._wanted, self._seed = wanted, seed
        self._size = 0.0  # mean square of the dense outputs

    def look(self, block: Block) -> None:
        """Keep what the block, dense still, gives.

        Raises:
            BadInput: several processes divide the batches.
        """
        if block.ranks.size > 1:
            raise BadInput("blocks are reconstructed by one process: leave distributed out")
        runs = _runs(block)
        for batch in runs.batches:
            runs.keep(batch, _outputs(runs, batch))
        self._size = _mean_square(target for batch in runs.batches for target in runs.kept(batch))

    def fit(self, block: Block, masks: Mapping[str, Tensor]) -> dict[str, float]:
        """Reconstruct the block, pruned by ``masks``; its squared output error, as a share of its squared dense output.

        Raises:
            NotFinite: the pruned block's outputs are NaN or infinite.
        """
        runs = _runs(block)
        before = self._error(runs)
        if not math.isfinite(before):
            raise NotFinite(f"what the pruned block {block.name!r} gives is not finite")
        inside = {name.removeprefix(f"{block.name}."): mask for name, mask in masks.items()}
        how = replace(self._wanted.how, seed=self._seed + block.index)
        placed = place(block.module, inside, how, strict=False)
        after = self._improved(runs, placed, before) if before and placed.pieces else before
        runs.drop()
        return {"block_error_pruned": before, "block_error": after}

    def _improved(self, runs: Runs, placed: Placed, before: float) -> float:
        """The error after training, or ``before``, with everything as it was, if that is not lower."""
        saved = [(target.parameter, target.parameter.detach().clone()) for target in placed.targets()]
        trained = False
        placed.insert()
        try:
            self._solve(runs, placed)
            trained = True
        finally:
            placed.remove(merge=trained)
        after = self._error(runs)
        if after < before:
            return after
        for parameter, value in saved:
            parameter.detach().copy_(value)
        return before

    def _solve(self, runs: Runs, placed: Placed) -> None:
        module = placed.model
        biases = [target.name for target in placed.targets()]
        if biases == ["bias"] and isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
            bias = next(placed.parameters())
            bias.detach().add_(self._mean_difference(runs, module).to(bias.dtype))
        else:
            self._train(runs, placed)

    def _train(self, runs: Runs, placed: Placed) -> None:
        steps, seed = self._wanted.steps, placed.how.seed
        warm = max(1, round(self._wanted.warmup * steps))
        optimizer = torch.optim.AdamW(list(placed.parameters()), self._wanted.lr, weight_decay=0.0)
        placed.train()
        for step, batch in zip(range(steps), _orders(runs.batches, seed), strict=False):
            rate = (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)
            optimizer.param_groups[0]["lr"] = self._wanted.lr * rate
            optimizer.zero_grad()
            _run(runs, batch, self._backward_to(iter(runs.kept(batch))), seed + step)
            optimizer.step()

    def _backward_to(self, targets: Iterator[Tensor]) -> Callable[[Tensor], None]:
        def backward(output: Tensor) -> None:
            ((output.float() - next(targets).float()).square().mean() / (self._size or 1.0)).backward()

        return backward

    def _error(self, runs: Runs) -> float:
        """Squared output error as a share of the squared dense output; the error itself where that is 0."""
        pairs = (pair for batch in runs.batches for pair in zip(_outputs(runs, batch), runs.kept(batch), strict=True))
        lost = _mean_square(output.double() - target.double() for output, target in pairs)
        return lost / self._size if self._size else lost

    def _mean_difference(self, runs: Runs, layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Tensor:
        """Mean of dense less pruned output over samples and places, one per output of ``layer``, in float64."""
        channel = 1 - layer.weight.dim() if isinstance(layer, _CONVOLUTIONS) else -1
        total, count = 0.0, 0
        for batch in runs.batches:
            for output, target in zip(_outputs(runs, batch), runs.kept(batch), strict=True):
                lined = (target.double() - output.double()).movedim(channel, -1).flatten(0, -2)
                total, count = total + lined.sum(0), count + lined.shape[0]
        return torch.as_tensor(total) / max(1, count)


def _run(runs: Runs, batch: int, see: Callable[[Tensor], None], seed: int | None = None) -> None:
    """Run the block and show ``see`` what it gives whenever it is called: rows of real tokens, with gradients if seeded."""

    def call(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if seed is not None:
            torch.manual_seed(seed)  # of dropout; a walk's runs of one batch are otherwise all alike
        with torch.set_grad_enabled(seed is not None):
            output = forward(*args, **kwargs)
            hidden = _hidden(output)
            real = runs.tokens(batch, forward, args, kwargs).mask(hidden, "the block's output")
            see(hidden if real is None else hidden.reshape(-1, hidden.shape[-1])[real])
        return tree_map_only(Tensor, torch.detach, output)

    runs(batch, call)


def _outputs(runs: Runs, batch: int) -> list[Tensor]:
    found: list[Tensor] = []
    _run(runs, batch, found.append)
    return found


def _runs(block: Block) -> Runs:
    assert block.runs is not None  # a walk's blocks have them
    return block.runs


def _hidden(output: Any) -> Tensor:
    """The hidden states a block gives: the first floating tensor of its output."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf
    raise BadInput(f"a block gives a {type(output).__name__} without a floating-point tensor: there is nothing to reconstruct")


def _mean_square(tensors: Iterator[Tensor]) -> float:
    total, count = 0.0, 0
    for tensor in tensors:
        total, count = total + float(tensor.double().square().sum()), count + tensor.numel()
    return total / count if count else 0.0


def _orders(batches: range, seed: int) -> Iterator[int]:
    """The batches again and again, each time in another order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from (batches[int(i)] for i in torch.randperm(len(batches), generator=generator))
