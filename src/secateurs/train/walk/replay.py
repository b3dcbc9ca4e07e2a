"""Run a model up to one block: finished blocks give what they gave before, later ones are never reached.

The model's own forward is run each time, so every block is called as the model calls it: with its own masks, rotary tables,
caches of position biases, encoder states. Only the blocks themselves are replaced while it runs: a finished one hands out
its recorded outputs, and when the wanted one has run, the forward is left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from secateurs.errors import BadInput, SecateursError
from secateurs.measure.mode import device_of, to_device
from secateurs.train.walk.store import Store, is_hollow

__all__ = ["Call", "Forward", "Replay", "as_it_is", "default_forward", "replaced_forward"]

Forward = Callable[[nn.Module, Any], Any]
#: What is to be done where the wanted block is called: (its own forward, arguments, keyword arguments) -> outputs.
Call = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class _Leave(BaseException):
    """Ends a forward whose rest is not needed. Not an Exception: the model's own handlers let it pass."""


def default_forward(model: nn.Module, batch: Any) -> Any:
    """``model(**batch)`` for a mapping, ``model(inputs)`` for a tensor or an ``(inputs, labels)`` pair."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def as_it_is(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A block's own forward, and nothing besides."""
    return forward(*args, **kwargs)


class Replay:
    """The recorded outputs of the finished blocks, and the runs that use them.

    Args:
        model: in evaluation mode, without gradients, while anything here runs.
        blocks: every block that will be finished, by name.
        batches: calibration batches.
        forward: how the model is called.
        store: where outputs are kept.
        seed: random numbers a forward draws follow it and the number of the batch.

    Attributes:
        ends: names of blocks whose outputs are kept for good, since other than the next block may want them: the last one
            of a tower. Of any other, outputs are kept until the next is finished. None keeps all.
        finished: names of the blocks that hand out what was recorded.
        calls: how often one forward calls each block.
    """

    def __init__(self, model: nn.Module, blocks: Mapping[str, nn.Module], batches: Sequence[Any], forward: Forward,
                 store: Store, seed: int = 0):  # fmt: skip
        self._model, self._blocks = model, dict(blocks)
        self._batches, self._forward, self._store, self._seed = batches, forward, store, seed
        self.ends: Sequence[str] | None = None
        self.finished: list[str] = []
        self.calls = dict.fromkeys(blocks, 1)

    def batch(self, index: int) -> Any:
        """One calibration batch."""
        return self._batches[index]

    def order(self) -> list[str]:
        """The blocks in the order in which the first batch calls them first; counts the calls of each. Runs the whole model."""
        counts: dict[str, int] = {}

        def note(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                counts[name] = counts.get(name, 0) + 1
                return original(*args, **kwargs)

            return forward

        self._run(0, note)
        self.calls |= counts
        self._blocks = {name: self._blocks[name] for name in counts}
        return list(counts)

    def run(self, index: int, wanted: str, call: Call = as_it_is) -> list[Any]:
        """Run a batch through the block ``wanted``, called by ``call``: its outputs, one per call of it.

        There are none if the batch does not use it.

        Raises:
            BadInput: the model uses an output that was not kept, or calls a block out of turn.
        """
        outputs: list[Any] = []
        used: dict[str, int] = {}
        gave_hollow = False
        done = set(self.finished)

        def stub(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def finished(*args: Any, **kwargs: Any) -> Any:
                nonlocal gave_hollow
                key = (index, name, used.get(name, 0))
                used[name] = key[2] + 1
                if key not in self._store:
                    raise BadInput(f"block {name!r} is called more often, or earlier, than when it was pruned: blocks must be "
                                   "called in the same order by every batch")  # fmt: skip
                output = self._store.get(key)
                gave_hollow = gave_hollow or is_hollow(output)
                return output

            def current(*args: Any, **kwargs: Any) -> Any:
                if gave_hollow and is_hollow((args, kwargs)):
                    raise _not_kept(name)
                output = call(original, args, kwargs)
                outputs.append(output)
                if len(outputs) >= self.calls[name]:
                    raise _Leave
                return tree_map_only(Tensor, torch.clone, output)  # the model may go on to write into it

            def later(*args: Any, **kwargs: Any) -> Any:
                raise _Leave

            return current if name == wanted else finished if name in done else later

        try:
            self._run(index, stub)
        except SecateursError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            if gave_hollow and not outputs and "meta" in str(error):
                raise _not_kept(wanted) from error
            raise
        return outputs

    def record(self, index: int, name: str, outputs: Sequence[Any]) -> None:
        """Keep what ``name`` gave for a batch, and let go what only ``name`` wanted."""
        for k, output in enumerate(outputs):
            self._store.put((index, name, k), output)
        before = self.finished[-1] if self.finished else None
        if before is not None and self.ends is not None and before not in self.ends:
            self._let_go(index, before)

    def finish(self, name: str) -> None:
        """From now on ``name`` hands out what was recorded."""
        self.finished.append(name)

    def _let_go(self, index: int, name: str) -> None:
        for k in range(self.calls[name]):
            key: Hashable = (index, name, k)
            if key in self._store:
                self._store.hollow_out(key)

    def _run(self, index: int, replace: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
        device = device_of(self._model)
        batch = to_device(self._batches[index], device) if device.type != "meta" else self._batches[index]
        cuda = [device.index] if device.type == "cuda" else []
        with ExitStack() as stack:
            for name, module in self._blocks.items():
                stack.enter_context(replaced_forward(module, replace(name, module.forward)))
            stack.enter_context(torch.random.fork_rng(cuda))
            stack.enter_context(suppress(_Leave))
            torch.manual_seed(self._seed + index)
            self._forward(self._model, batch)


def _not_kept(name: str) -> BadInput:
    return BadInput(f"block {name!r} uses what an earlier block than the one before it gave, which was not kept; walk with "
                    "keep='all'")  # fmt: skip


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, calling ``module`` calls ``forward``; afterwards its own, or what another library had put there before."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = before
