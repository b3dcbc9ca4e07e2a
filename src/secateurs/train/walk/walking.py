"""The walk: block by block, measure the inputs of the weights, prune, and go on with what the pruned block gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput, near
from secateurs.measure.mode import evaluating
from secateurs.measure.process import give_back_freed
from secateurs.models import Left, Survey, Weight, unwrap
from secateurs.statistics import find_accumulator
from secateurs.train.walk.collect import Collector, Inputs
from secateurs.train.walk.experts import configurations, eager_experts
from secateurs.train.walk.padding import Tokens, tokens_of
from secateurs.train.walk.parallel import Ranks
from secateurs.train.walk.precision import computing_in
from secateurs.train.walk.replay import Call, Forward, Replay, as_it_is, default_forward
from secateurs.train.walk.route import Route, find_route
from secateurs.train.walk.state import State, digest, digest_of_batches, own_tensors
from secateurs.train.walk.store import Store

__all__ = ["Block", "Runs", "Source", "Walked", "walk"]

PROPAGATE = ("pruned", "dense")


@dataclass(frozen=True)
class Runs:
    """The calibration batches of this process, each run up to the block by what its predecessors give now.

    ``batches`` are their numbers. In a call the block's arguments are without gradients, which are off and may be put on.
    """

    batches: range
    _name: str
    _replay: Replay = field(repr=False)
    _store: Store = field(repr=False)
    _precision: Callable[[], AbstractContextManager[object]] = field(repr=False)

    def __call__(self, batch: int, call: Call = as_it_is) -> list[Any]:
        """What the block gives, called as ``call`` says, once for every time the model calls it."""
        with self._precision():
            return self._replay.run(batch, self._name, call)

    def tokens(self, batch: int, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tokens:
        """The real tokens of a call with these arguments."""
        return tokens_of(self._replay.batch(batch), forward, args, kwargs)

    def keep(self, batch: int, value: Any) -> None:
        """Keep ``value`` where activations are kept, within the walk's budget of memory."""
        self._store.put((batch, self._name, "kept"), value)

    def kept(self, batch: int) -> Any:
        """What :meth:`keep` was given."""
        return self._store.get((batch, self._name, "kept"))

    def drop(self) -> None:
        """Forget what was kept of all batches."""
        for batch in self.batches:
            self._store.drop((batch, self._name, "kept"))


@dataclass(frozen=True)
class Block:
    """What a visit gets: a block, dense still, fed by its predecessors.

    Attributes:
        name, index, total: which of how many blocks of the walk.
        module: the block.
        weights: to be pruned in place, by writing into ``weight.parameter``.
        statistics: by weight name, what was measured of its inputs.
        unseen: names of weights whose layer no batch reached: there is nothing to judge them by, and no statistics.
        ranks: where several processes walk together, ``weights`` are this one's alone, and it must learn of the others' by
            the methods of ``ranks``.
        runs: runs of the block on the calibration batches, for a visit that needs more than statistics.
    """

    name: str
    index: int
    total: int
    module: nn.Module = field(repr=False)
    weights: tuple[Weight, ...] = field(repr=False)
    statistics: Mapping[str, Inputs] = field(repr=False)
    unseen: tuple[str, ...] = ()
    ranks: Ranks = field(default_factory=Ranks, repr=False)
    runs: Runs | None = field(default=None, repr=False)

    def rare(self, share: float = 0.1) -> list[tuple[str, int, int]]:
        """Experts that got less than ``share`` of an even portion of the routed tokens: (weight, expert, tokens)."""
        found = []
        for weight in self.weights:
            if weight.kind == "experts" and weight.name in self.statistics:
                tokens = self.statistics[weight.name].tokens
                found += [(weight.name, i, n) for i, n in enumerate(tokens) if n < share * sum(tokens) / len(tokens)]
        return found


class Source(Protocol):
    """Where the values of a block come from before it runs, and what happens when the walk has done with it."""

    resident: bool  # whether all blocks have values at all times

    def outside(self, blocks: Iterable[str]) -> AbstractContextManager[None]:
        """Inside, layers that lie in none of ``blocks`` have their values when they are called."""

    def value(self, name: str, held: Tensor) -> Tensor:
        """The dense value of the tensor that the model holds as ``held``."""

    def open(self, name: str, module: nn.Module) -> None:
        """Give the block its dense values."""

    def close(self, name: str, module: nn.Module) -> None:
        """The block is finished and will not run again."""


class Resident:
    """A model that is in memory as a whole."""

    resident = True

    def outside(self, blocks: Iterable[str]) -> AbstractContextManager[None]:
        """They have."""
        return nullcontext()

    def value(self, name: str, held: Tensor) -> Tensor:
        """It holds it."""
        return held

    def open(self, name: str, module: nn.Module) -> None:
        """It has them."""

    def close(self, name: str, module: nn.Module) -> None:
        """It stays; what its passes have freed goes back to the system."""
        give_back_freed()


@dataclass(frozen=True)
class Walked:
    """What a walk has done: the visits' facts by block, weights it left alone, bytes of activations that went to disk."""

    facts: dict[str, dict[str, Any]]
    left: tuple[Left, ...]
    spilled: int


#: Prunes the block's weights in place; what it returns is kept as the block's facts (JSON-able).
Visit = Callable[[Block], Mapping[str, Any] | None]
#: Called after every block: (blocks done, blocks in all, name of the block).
Progress = Callable[[int, int, str], None]


def walk(
    model: nn.Module,
    chosen: Survey,
    batches: Iterable[Any],
    wants: Sequence[str],
    visit: Visit,
    *,
    blocks: str | Sequence[str] = (),
    propagate: str = "pruned",
    dtype: torch.dtype = torch.float32,
    share: bool = True,
    keep: str | None = None,
    forward: Forward = default_forward,
    budget: int | None = None,
    scratch: str | Path | None = None,
    state: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    source: Source | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    compute: str | None = None,
    ranks: Ranks | None = None,
) -> Walked:
    """Prune the ``chosen`` weights of ``model`` in place, block by block (Frantar & Alistarh 2023; Sun et al. 2023).

    For every block: run all batches through the dense block, fed by its predecessors, and measure the inputs of its weights;
    let ``visit`` prune them; run the batches through the pruned block to feed the next one. The model's own forward is run
    each time, with finished blocks handing out what they gave before, so masks, rotary tables and encoder states are always
    the model's own. A mapping's attention masks keep padding out of the statistics.

    Args:
        model: in any mode; it runs in evaluation mode without gradients or caches, and is as before afterwards.
        chosen: the weights to prune (see :func:`secateurs.models.select`).
        batches: mappings (``model(**batch)``), tensors or ``(inputs, labels)`` pairs, kept in memory.
        wants: statistics: ``"norms"``, ``"gram"``, ``"moments"``.
        visit: called for every block that has weights, with the model as it is then.
        blocks: names of the lists of blocks, or of blocks, where they are not found (:func:`secateurs.models.find_blocks`).
        propagate: ``"pruned"`` feeds a block by its pruned predecessors, ``"dense"`` by the dense ones.
        dtype: of the statistics, float32 or float64.
        share: measure once what several weights read.
        keep: ``"all"`` keeps the outputs of every block, where a model uses others than those of the block before.
        forward: how the model is called with a batch.
        budget: bytes of activations kept in memory; what is beyond goes to files in ``scratch``.
        state: a folder for what is finished. If it holds a part of the same walk, that is taken over and not done again.
        settings: what else the visits depend on, as JSON-able data: another value does not continue the ``state``.
        source: where blocks get their values, for a model that is not in memory as a whole.
        progress: called after every block.
        seed: of random numbers the model may draw.
        compute: ``"bfloat16"`` or ``"float16"``: the dtype in which batches are run, where it is not to be the model's.
        ranks: the processes that walk together, as a context that is entered; each calls this with the same arguments, runs its
            :meth:`~secateurs.train.walk.parallel.Ranks.share` of the batches, visits its part of every block's weights, and
            ends with the whole. Of ``state`` the first one reads and writes; ``progress`` is called, and ``budget`` counts, in
            each. Sums over batches are rounded differently by another number of processes.

    Raises:
        BadInput: no batch, nothing to walk, or whatever cannot be measured; blocks visited before it stay pruned. Fewer
            batches than processes, or other arguments than another process has.
        NotFinite: activations are not finite; names the layer.
    """
    if propagate not in PROPAGATE:
        raise BadInput(f"propagate={propagate!r}: use 'pruned' or 'dense'{near(propagate, PROPAGATE)}")
    if keep not in (None, "all"):
        raise BadInput(f"keep={keep!r}: say 'all', or nothing")
    for want in wants:
        find_accumulator(want)
    given = list(batches)
    if not given:
        raise BadInput("calibration gave no batch; pass at least one")
    inner, source, ranks = unwrap(model), source or Resident(), ranks or Ranks()
    precision = partial(computing_in, compute, inner)
    precision()  # refuses what it does not know
    mine = ranks.share(len(given))
    if not source.resident and state is None:
        raise BadInput("a model that is read block by block needs state=, a folder for the finished blocks")
    route = find_route(inner, chosen, blocks)
    with ExitStack() as stack:
        for context in (evaluating(inner), no_cache(inner), eager_experts(inner)):
            stack.enter_context(context)
        store = stack.enter_context(Store(budget, scratch))
        stack.enter_context(source.outside([stop.name for stop in route.stops]))
        replay = Replay(inner, {stop.name: stop.module for stop in route.stops}, given, forward, store, seed)
        if source.resident and route.stops:
            with precision():
                route = route.through(replay.order())
        replay.ends = None if keep == "all" else route.ends
        route = route.until_done()
        if not route.stops:
            reasons = "; ".join(f"{left.name!r}: {left.reason}" for left in route.left[:3])
            raise BadInput(f"nothing to walk through: {reasons or 'no weight is selected'}")
        identity = {"blocks": [stop.name for stop in route.stops], "weights": [w.name for w in route.weights],
                    "statistics": list(wants), "propagate": propagate, "dtype": str(dtype), "seed": seed,
                    "calibration": digest_of_batches(given) if state or ranks.size > 1 else "",
                    "outside": _outside(inner, route, source) if state and ranks.first else "",
                    "settings": dict(settings or {}), **({"compute": compute} if compute else {})}  # fmt: skip
        if ranks.size > 1:
            _check_same(ranks, inner, identity)
            identity["processes"] = ranks.size
        at = State(state, identity) if state is not None and ranks.first else None
        finished = ranks.of_first(len(at.finished) if at else 0)
        collector = partial(Collector, wants=wants, dtype=dtype, share=share)
        steps = _Steps(route, replay, store, source, at, finished, propagate == "dense", collector, ranks, mine, precision)
        facts = {}
        for index, stop in enumerate(route.stops):
            facts[stop.name] = steps.take(index, visit)
            if progress is not None:
                progress(index + 1, len(route.stops), stop.name)
        return Walked(facts, route.left, store.spilled)


@dataclass(frozen=True)
class _Steps:
    """One block after the other."""

    route: Route
    replay: Replay
    store: Store
    source: Source
    state: State | None  # the first process's
    finished: int  # blocks that are in it already
    dense: bool
    collector: Callable[[Sequence[Weight]], Collector]
    ranks: Ranks
    batches: range  # this process's
    precision: Callable[[], AbstractContextManager[object]]

    def take(self, index: int, visit: Visit) -> dict[str, Any]:
        """Measure, prune and pass on one block, or take it over finished; its facts."""
        stop = self.route.stops[index]
        self.source.open(stop.name, stop.module)
        before = digest(own_tensors(stop.name, stop.module).values()) if self.state else ""
        if index < self.finished:
            facts = self._take_over(index, before)
        else:
            facts = self._prune(index, visit)
            if self.state is not None:
                self.state.save(stop.name, stop.module, before, facts)
        self.replay.finish(stop.name)
        self.source.close(stop.name, stop.module)
        return facts

    def _prune(self, index: int, visit: Visit) -> dict[str, Any]:
        if self.route.stops[index].weights:
            return self._visit(index, visit)
        self._pass(index)
        return {}

    def _visit(self, index: int, visit: Visit) -> dict[str, Any]:
        """Measure what all batches give the block, have this process's part of it pruned, take over the others', pass it on."""
        stop, collector = self.route.stops[index], self.collector(self.route.stops[index].weights)
        self._pass(index, partial(self._measuring, collector), record=self.dense)
        owners = collector.merge(self.ranks)
        collector.check()
        mine = tuple(weight for weight in stop.weights if owners.get(weight.name, 0) == self.ranks.rank)
        unseen = tuple(weight.name for weight in mine if weight.name not in owners)
        runs = Runs(self.batches, stop.name, self.replay, self.store, self.precision)
        block = Block(stop.name, index, len(self.route.stops), stop.module, mine, collector.inputs, unseen, self.ranks, runs)
        facts = dict(visit(block) or {})
        self.ranks.spread((weight.parameter, owners[weight.name]) for weight in stop.weights if weight.name in owners)
        if not self.dense:
            self._pass(index)
        return self.ranks.of_first(facts)

    def _take_over(self, index: int, before: str) -> dict[str, Any]:
        stop = self.route.stops[index]
        entry = self.state.check(index, stop.name, before) if self.state is not None else {"facts": {}}
        if self.dense:
            self._pass(index)
        if self.state is not None:
            self.state.restore(index, stop.name, stop.module)
        self.ranks.spread((tensor, 0) for tensor in own_tensors(stop.name, stop.module).values())
        if not self.dense:
            self._pass(index)
        return self.ranks.of_first(dict(entry["facts"]))

    def _pass(self, index: int, caller: Callable[[int, nn.Module], Call] | None = None, record: bool = True) -> None:
        """Run this process's batches through a block, called as ``caller(batch, block)`` says, and record what it gives.

        What the last block gives is wanted by nobody.
        """
        stop, record = self.route.stops[index], record and index < len(self.route.stops) - 1
        if caller is None and not record:
            return
        with self.precision():
            for i in self.batches:
                call = as_it_is if caller is None else caller(i, stop.module)
                outputs = self.replay.run(i, stop.name, call)
                if record:
                    self.replay.record(i, stop.name, outputs)

    def _measuring(self, collector: Collector, batch: int, block: nn.Module) -> Call:
        def call(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tokens = tokens_of(self.replay.batch(batch), forward, args, kwargs)
            return collector.run(tokens, block, forward, args, kwargs)

        return call


def _outside(model: nn.Module, route: Route, source: Source) -> str:
    """A hash of what lies outside the blocks: parameters and buffers that feed them."""
    inside = tuple(f"{stop.name}." for stop in route.stops)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return digest(source.value(name, tensor) for name, tensor in held.items() if not name.startswith(inside))


def _check_same(ranks: Ranks, model: nn.Module, identity: Mapping[str, Any]) -> None:
    """Refuse processes that were given different things."""
    values = (tensor for tensor in own_tensors("", model).values() if not tensor.is_meta)
    plain = {key: value for key, value in identity.items() if key not in ("calibration", "outside")}
    settings = json.dumps(plain, sort_keys=True)
    ranks.check_same(model=digest(values), calibration=identity["calibration"], settings=settings)


@contextmanager
def no_cache(model: nn.Module) -> Iterator[None]:
    """Without caches of keys and values inside: every part's configuration says so."""
    configs = configurations(model, "use_cache")
    before = [(config, config.use_cache) for config in configs]
    try:
        for config in configs:
            config.use_cache = False
        yield
    finally:
        for config, was in before:
            config.use_cache = was
