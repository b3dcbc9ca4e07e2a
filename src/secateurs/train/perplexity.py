"""Perplexity of a model in a Hugging Face folder within a memory budget: its weights are never in memory as a whole."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.measure import perplexity
from secateurs.measure.mode import evaluating
from secateurs.measure.process import MemoryUse, PeakAnonymous
from secateurs.models import survey
from secateurs.train.budget import as_bytes, for_activations
from secateurs.train.walk import Route, Streamed, find_route, open_folder
from secateurs.train.walk.replay import Replay
from secateurs.train.walk.store import Store
from secateurs.train.walk.walking import Progress, no_cache

__all__ = ["FolderPerplexity", "folder_perplexity"]

_LOGITS = 2**26  # bytes of logits at a time, with their float32 copies


@dataclass(frozen=True)
class FolderPerplexity:
    """A perplexity, and whether the memory budget was kept."""

    value: float
    memory: MemoryUse


def folder_perplexity(
    folder: str | Path,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    memory: str | int,
    blocks: str | Sequence[str] = (),
    scratch: str | Path | None = None,
    progress: Progress | None = None,
) -> FolderPerplexity:
    """:func:`secateurs.measure.perplexity` of a causal language model in ``folder``, with one block in memory at a time.

    All batches go through a block before the next is read, and logits are computed for a few positions at a time: the value is
    that of the model in memory up to rounding.

    Args:
        batches: mappings with ``input_ids [N, S]``; ``labels``, if others than those; -100 does not count.
        memory: bytes this process may hold (a number, or text as ``"2GB"``), pages of mapped files not counted. It is measured.
        blocks: names of the lists of blocks, or of blocks, where they are not found.
        scratch: an existing folder for activations beyond the budget; the system's own unless told.
        progress: called after every block.

    Raises:
        BadInput: not a Hugging Face folder, no blocks, no batch, or a budget that cannot be kept.
        NotFinite: a weight is NaN or infinite.
    """
    budget = as_bytes(memory)
    with PeakAnonymous() as watched:
        source, given = open_folder(folder), [dict(batch) for batch in batches]
        if not given:
            raise BadInput("no perplexity: there are no batches")
        route = find_route(source.model, survey(source.model), blocks)
        if not route.stops:
            raise BadInput(f"{str(folder)!r} holds a {type(source.model).__name__}, in which no blocks are found")
        share = for_activations(source.model, [stop.name for stop in route.stops], budget, _LOGITS)
        value = _perplexity(source, route, given, share, scratch, progress)
    return FolderPerplexity(value, MemoryUse(budget, watched.peak))


def _perplexity(
    source: Streamed, route: Route, batches: Sequence[Mapping[str, Tensor]], share: int, scratch: str | Path | None,
    progress: Progress | None,
) -> float:  # fmt: skip
    model, stops = source.model, route.stops
    with ExitStack() as stack:
        for context in (evaluating(model), no_cache(model), source.outside([stop.name for stop in stops])):
            stack.enter_context(context)
        head = _Head(model)
        store = stack.enter_context(Store(share, scratch))
        replay = Replay(model, {stop.name: stop.module for stop in stops}, batches, head, store)
        replay.ends = route.ends
        for number, stop in enumerate(stops, 1):
            source.open(stop.name, stop.module)
            for i in range(len(batches)):
                replay.record(i, stop.name, replay.run(i, stop.name))
            replay.finish(stop.name)
            source.close(stop.name, stop.module)
            if progress is not None:
                progress(number, len(stops), stop.name)
        return perplexity(model, head.pieces(batches), lambda _, piece: head.predict(replay, piece))


class _Head:
    """What comes after the blocks, for a few positions at a time."""

    def __init__(self, model: nn.Module):
        self._piecewise = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._positions: Tensor | None = None
        self._logits: Tensor | None = None
        config: Any = model.config
        self._classes = int(config.get_text_config().vocab_size)

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> None:
        """The model's forward; it gets here only where every block is finished."""
        chosen = {} if self._positions is None else {"logits_to_keep": self._positions}
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        self._logits = model(**inputs, **chosen).logits

    def pieces(self, batches: Sequence[Mapping[str, Tensor]]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number of the batch, positions ``[P]`` that predict, and the labels ``[N, P]`` behind them."""
        for i, batch in enumerate(batches):
            labels = batch.get("labels", batch["input_ids"])
            most = max(1, _LOGITS // (10 * self._classes * len(labels)))
            positions = torch.arange(labels.shape[1] - 1)
            for part in positions.split(most) if self._piecewise else [positions]:
                yield i, part, labels[:, part + 1]

    def predict(self, replay: Replay, piece: tuple[int, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits ``[N, P, classes]`` and targets ``[N, P]``."""
        index, positions, targets = piece
        self._positions = positions if self._piecewise else None
        replay.run(index, "")
        logits, self._logits = self._logits, None
        if logits is None:
            raise BadInput("the model stopped before its last layer: it calls blocks in another order than it holds them")
        whole = logits.shape[1] != len(positions)  # nobody chose, or recorded: the last layer is a block
        return (logits[:, positions] if whole else logits), targets
