"""Measuring the inputs of a block's weights while it runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput, NotFinite
from secateurs.models import Site, Weight, parts
from secateurs.statistics import Accumulator, find_accumulator
from secateurs.train.walk.columns import columns, reading
from secateurs.train.walk.experts import watch_experts
from secateurs.train.walk.padding import Tokens
from secateurs.train.walk.replay import replaced_forward

__all__ = ["Collector", "Inputs"]


class Inputs:
    """What was measured of the inputs of a weight: for every part of it (see :mod:`secateurs.models.matrices`) one
    accumulator per statistic.

    Weights that read the same tensor (the query, key and value projections) have the very same ``Inputs``.
    """

    def __init__(self, wants: Sequence[str], count: int, width: int, dtype: torch.dtype, device: torch.device):
        self._by_want = {w: tuple(find_accumulator(w)(width, dtype, device) for _ in range(count)) for w in wants}

    def __getitem__(self, want: str) -> tuple[Accumulator, ...]:
        """The accumulators of a statistic, one per part."""
        return self._by_want[want]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_want)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens seen by each part."""
        return tuple(one.tokens for one in next(iter(self._by_want.values())))

    def update(self, part: int, x: Tensor, mask: Tensor | None, sequences: int | None) -> None:
        """Add an input ``[..., columns]`` of a part to all its statistics."""
        for accumulators in self._by_want.values():
            accumulators[part].update(x, mask, sequences)

    def all(self) -> list[Accumulator]:
        """Every accumulator."""
        return [one for accumulators in self._by_want.values() for one in accumulators]


class Collector:
    """Measures the inputs of ``weights``, all of them in one block, over any number of forwards of it.

    Args:
        weights: what :func:`secateurs.train.walk.columns.unmeasured` has nothing against.
        wants: names of :data:`secateurs.statistics.ACCUMULATORS`.
        dtype: of the sums.
        share: measure an input that several weights read once. They are told by the memory an input lies in.
    """

    def __init__(self, weights: Sequence[Weight], wants: Sequence[str], dtype: torch.dtype = torch.float32, share: bool = True):
        for want in wants:
            find_accumulator(want)
        self._weights, self._wants, self._dtype, self._share = tuple(weights), tuple(wants), dtype, share
        self.inputs: dict[str, Inputs] = {}
        self._leader: dict[str, str] = {}
        self._seen: dict[str, list[Hashable]] = {}
        self._fresh: dict[Hashable, str] = {}  # inputs that were first seen in this forward, and by whom
        self._held: list[Tensor] = []  # while a forward runs nothing may be stored where an input was
        self._tokens = Tokens()

    def run(self, tokens: Tokens, block: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...],
            kwargs: dict[str, Any]) -> Any:  # fmt: skip
        """Call ``forward``, that of the ``block``, which is being called already, and measure what its weights read.

        Raises:
            BadInput: padding cannot be told, or weights that shared an input no longer do.
        """
        self._tokens, self._seen, self._fresh = tokens, {}, {}
        try:
            with ExitStack() as stack:
                for weight in self._weights:
                    for site in weight.sites if weight.kind != "experts" else ():
                        if site.module is block:  # its hooks have run
                            self._hook(weight)(block, args, kwargs)
                        else:
                            stack.callback(site.module.register_forward_pre_hook(self._hook(weight), with_kwargs=True).remove)
                for module, weights in self._experts():
                    own = forward if module is block else module.forward
                    watched = watch_experts(module, own, weights, self._see_expert, self._real(weights))
                    stack.enter_context(replaced_forward(module, watched))
                    forward = watched if module is block else forward
                output = forward(*args, **kwargs)
            for name, leader in self._leader.items():
                if self._seen.get(name) != self._seen.get(leader):
                    raise _parted(name, leader)
            return output
        finally:
            self._held = []

    def check(self) -> None:
        """Raise :class:`NotFinite`, naming the weight, if a NaN or an infinity was among the inputs."""
        for name, inputs in self.inputs.items():
            if not all(one.finite() for one in inputs.all()):
                raise NotFinite(f"the inputs of {name!r} are not finite: NaN or infinity among the calibration activations, or "
                                "sums beyond float32 (measure in float64)")  # fmt: skip

    def _experts(self) -> list[tuple[nn.Module, list[Weight]]]:
        found: dict[int, tuple[nn.Module, list[Weight]]] = {}
        for weight in self._weights:
            if weight.kind == "experts":
                site: Site = weight.sites[0]
                found.setdefault(id(site.module), (site.module, []))[1].append(weight)
        return list(found.values())

    def _real(self, weights: list[Weight]) -> Callable[[Tensor], Tensor | None]:
        return lambda hidden: self._tokens.mask(hidden, weights[0].name)

    def _hook(self, weight: Weight) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._see(weight, module, next(iter((*args, *kwargs.values()))))

        return hook

    def _see(self, weight: Weight, module: nn.Module, x: Tensor) -> None:
        key = (*_identity(x), reading(module))
        self._held.append(x)
        self._seen.setdefault(weight.name, []).append(key)
        leader = self._leader.get(weight.name)
        if leader is not None:
            turn = len(self._seen[weight.name]) - 1
            if self._seen.get(leader, [])[turn : turn + 1] != [key]:
                raise _parted(weight.name, leader)
            return
        if weight.name not in self.inputs:
            first = self._fresh.setdefault(key, weight.name) if self._share else weight.name
            if first != weight.name:
                self._leader[weight.name], self.inputs[weight.name] = first, self.inputs[first]
                return
        self._measure(weight, module, x)

    def _measure(self, weight: Weight, module: nn.Module, x: Tensor) -> None:
        for part, rows in enumerate(columns(weight, module, x)):
            self._of(weight, rows).update(part, rows, self._tokens.mask(rows, weight.name), self._tokens.sequences)

    def _see_expert(self, weight: Weight, expert: int, x: Tensor) -> None:
        inputs = self._of(weight, x)
        if weight.name not in self._seen:  # every expert's share is of the same sequences, those it gets nothing of too
            self._seen[weight.name] = []
            for one in inputs.all():
                one.sequences += self._tokens.sequences or 0
        inputs.update(expert, x, None, 0)

    def _of(self, weight: Weight, rows: Tensor) -> Inputs:
        if weight.name not in self.inputs:
            self.inputs[weight.name] = Inputs(self._wants, parts(weight), rows.shape[-1], self._dtype, rows.device)
        return self.inputs[weight.name]


def _identity(x: Tensor) -> tuple[Hashable, ...]:
    version = 0 if x.is_inference() else x._version
    return (x.data_ptr(), x.shape, x.stride(), x.dtype, version)


def _parted(name: str, leader: str) -> BadInput:
    return BadInput(f"{name!r} and {leader!r} read one input in an earlier calibration batch, and two in this one; measure "
                    "them apart with share=False")  # fmt: skip
