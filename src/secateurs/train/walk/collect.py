"""Measuring the inputs of a block's weights while it runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
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
from secateurs.train.walk.parallel import Ranks
from secateurs.train.walk.replay import replaced_forward

__all__ = ["Collector", "Inputs"]


class Inputs:
    """What was measured of the inputs of a weight: for every part of it (see :mod:`secateurs.models.matrices`) one
    accumulator per statistic.

    Weights that read the same tensor (the query, key and value projections) have the very same ``Inputs``.
    """

    def __init__(self, by_want: Mapping[str, tuple[Accumulator, ...]]):
        self._by_want = dict(by_want)

    @classmethod
    def empty(cls, wants: Sequence[str], count: int, width: int, dtype: torch.dtype, device: torch.device) -> Inputs:
        """Of ``count`` parts with ``width`` columns, before any input."""
        return cls({want: tuple(find_accumulator(want)(width, dtype, device) for _ in range(count)) for want in wants})

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

    def merge(self, other: Inputs) -> None:
        """Add what ``other`` has measured of the same weight."""
        for mine, theirs in zip(self.all(), other.all(), strict=True):
            mine.merge(theirs)

    def state_dict(self) -> dict[str, Any]:
        """Every accumulator's state, as plain data and tensors (not copied)."""
        numbered = ((want, part, one) for want, found in self._by_want.items() for part, one in enumerate(found))
        return {f"{want} {part} {key}": value for want, part, one in numbered for key, value in one.state_dict().items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Inputs:
        """What :meth:`state_dict` was of, with tensors of its own."""
        states: dict[str, dict[str, dict[str, Any]]] = {}
        for name, value in state.items():
            want, part, key = name.split(" ")
            states.setdefault(want, {}).setdefault(part, {})[key] = value
        return cls({want: tuple(map(Accumulator.from_state_dict, found.values())) for want, found in states.items()})


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

    def merge(self, ranks: Ranks) -> dict[str, int]:
        """Put together what the processes have measured: every input, with all weights that read it, goes to one of them.

        Afterwards ``inputs`` has the weights that are this process's.

        Returns:
            The process of every weight that a token has reached in any of them, by name.

        Raises:
            BadInput: weights that shared an input in one process did not in another.
        """
        leaders = self._leaders(ranks)
        owners = _divided(self._weights, leaders, ranks.size)
        led = {weight.name: weight.parameter.device for weight in self._weights if leaders.get(weight.name) == weight.name}
        mine = {name: inputs for name, inputs in self.inputs.items() if name in led}
        merged = ranks.merged(mine, Inputs, {name: owners[name] for name in led}, led)
        self.inputs = {name: merged[leader] for name, leader in leaders.items() if leader in merged}
        return owners

    def check(self) -> None:
        """Raise :class:`NotFinite`, naming the weight, if a NaN or an infinity was among the inputs."""
        for name, inputs in self.inputs.items():
            if not all(one.finite() for one in inputs.all()):
                raise NotFinite(f"the inputs of {name!r} are not finite: NaN or infinity among the calibration activations, or "
                                "sums beyond float32 (measure in float64)")  # fmt: skip

    def _leaders(self, ranks: Ranks) -> dict[str, str]:
        """By weight, whose input it reads, as all processes have found, in the order of the weights."""
        found: dict[str, str] = {}
        for one in ranks.gather({name: self._leader.get(name, name) for name in self.inputs}):
            for name, leader in one.items():
                if found.setdefault(name, leader) != leader:
                    raise _parted(name, leader)
        return {weight.name: found[weight.name] for weight in self._weights if weight.name in found}

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
            self.inputs[weight.name] = Inputs.empty(self._wants, parts(weight), rows.shape[-1], self._dtype, rows.device)
        return self.inputs[weight.name]


def _divided(weights: Sequence[Weight], leaders: Mapping[str, str], count: int) -> dict[str, int]:
    """Which of ``count`` processes prunes each weight: those of one input together, the largest first, to the least laden."""
    sizes: dict[str, int] = {}
    for weight in weights:
        if weight.name in leaders:
            sizes[leaders[weight.name]] = sizes.get(leaders[weight.name], 0) + weight.size
    laden, owner = [0] * count, {}
    for leader in sorted(sizes, key=lambda name: -sizes[name]):
        owner[leader] = laden.index(min(laden))
        laden[owner[leader]] += sizes[leader]
    return {name: owner[leader] for name, leader in leaders.items()}


def _identity(x: Tensor) -> tuple[Hashable, ...]:
    version = 0 if x.is_inference() else x._version
    return (x.data_ptr(), x.shape, x.stride(), x.dtype, version)


def _parted(name: str, leader: str) -> BadInput:
    return BadInput(f"{name!r} and {leader!r} read one input in an earlier calibration batch, and two in this one; measure "
                    "them apart with share=False")  # fmt: skip
