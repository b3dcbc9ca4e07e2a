"""What ``secateurs prune`` does with data: calibration batches, perplexity before and after, a state to resume from."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateurs.cli.inputs import Drawn, draw, loss_of
from secateurs.cli.opening import Opened
from secateurs.cli.ranks import for_all, leave_to_first, processes
from secateurs.cli.resuming import partial_folder, resumable
from secateurs.cli.showing import Stages, share
from secateurs.cli.text import Perplexity, Text, finite, is_causal, usual_length
from secateurs.cli.wanted import Wanted
from secateurs.errors import BadInput
from secateurs.recipe import Recipe
from secateurs.train import BlockDone, Pruned, prune

__all__ = ["Calibrated", "Done", "prune_with_text", "teller"]


@dataclass(frozen=True)
class Calibrated:
    """The flags about data, and about the walk through a model: arguments of :func:`secateurs.prune`."""

    source: str | None = None
    samples: int = 128
    length: int | None = None
    column: str | None = None
    perplexity: str | None = None
    windows: int | None = None
    walk: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unwalked(self) -> dict[str, Any]:
        """What was said of a walk, for a method that has none and says so."""
        return {key: self.walk[key] for key in ("blocks", "only_blocks", "compute") if self.walk.get(key)}

    def drawn(self, opened: Opened, seed: int, trust_remote_code: bool) -> Drawn | None:
        """Calibration batches and words for them, if there is a source."""
        if self.source is None:
            return None
        return draw(Wanted(self.source, self.samples, self.length, self.column, seed, trust_remote_code), opened)

    def measured(self, opened: Opened, batches: list[dict[str, Any]] | None, trust_remote_code: bool) -> Perplexity | None:
        """What perplexity is measured on, if on anything: the text named for it, or the calibration windows."""
        if self.perplexity is not None:
            if not is_causal(opened.model):
                raise BadInput(f"--perplexity: a {type(opened.model).__name__} is no causal language model")
            text = self._text(self.perplexity, opened)
            return Perplexity(text.windows(opened, self.windows, trust_remote_code), self.perplexity)
        plain = bool(batches) and all(batch.keys() == {"input_ids"} for batch in batches or ())
        return Perplexity(batches or [], "the calibration windows") if plain and is_causal(opened.model) else None

    def _text(self, source: str, opened: Opened) -> Text:
        return Text(source, self.length or usual_length(opened.model), self.column or "text")


@dataclass(frozen=True)
class Done:
    """What was done, what it was calibrated on in words, and perplexity before and after; None where there is none."""

    pruned: Pruned
    calibration: str | None
    perplexity: dict[str, Any] | None


def prune_with_text(
    opened: Opened, recipe: Recipe, text: Calibrated, walks: bool, out: Path, trust_remote_code: bool, at: Stages
) -> Done:
    """Prune the opened model itself.

    The blocks of a walk are kept in a folder beside ``out`` until :func:`~secateurs.cli.resuming.done_with` removes it.
    """
    at.begin("calibration")
    drawn = text.drawn(opened, recipe.seed, trust_remote_code)
    batches, words = (None, None) if drawn is None else (drawn.batches, drawn.words)
    measured = text.measured(opened, batches, trust_remote_code)
    before = None if measured is None else finite(measured.measure(opened.model))
    at.begin("pruning")
    walking: dict[str, Any] = {} if text.source is None else {"loss": loss_of(text.source)}
    walking |= text.unwalked
    if walks:
        walking |= {**text.walk, "state": partial_folder(out), "progress": resumable(out, teller(at))}
    done = prune(opened.model, recipe, calibration=for_all(batches), inplace=True, distributed=processes() > 1, **walking)
    leave_to_first()
    if measured is None:
        return Done(done, words, None)
    at.begin("measuring")
    return Done(done, words, {"before": before, "after": finite(measured.measure(opened.model)), **measured.facts()})


def teller(at: Stages) -> Callable[[BlockDone], None]:
    """Progress of blocks: removed so far, the error of the last, and the time that is left at this pace."""
    began, size, removed = time.monotonic(), 0, 0

    def tell(done: BlockDone) -> None:
        nonlocal size, removed
        size, removed = size + done.size, removed + done.removed
        left = (time.monotonic() - began) / done.number * (done.total - done.number)
        words = [f"block {done.number}/{done.total}", f"{share(removed / size)} removed" if size else "taken over"]
        words += [] if done.error is None else [f"error {done.error:.3g}"]
        text = ", ".join([*words, f"{left:.0f} s left"])
        if not at.note(text):
            print(text, file=sys.stderr, flush=True)

    return tell
