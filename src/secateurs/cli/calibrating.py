"""What ``secateurs prune`` does with text: calibration batches, perplexity before and after, a state to resume from."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateurs.cli.opening import Opened
from secateurs.cli.showing import Stages, share
from secateurs.cli.text import Perplexity, Text, finite, is_causal, usual_length
from secateurs.errors import BadInput
from secateurs.recipe import Recipe
from secateurs.train import BlockDone, Pruned, prune

__all__ = ["Calibrated", "done_with", "prune_with_text", "teller"]


@dataclass(frozen=True)
class Calibrated:
    """The flags about text, and about the walk through a model: arguments of :func:`secateurs.prune`."""

    source: str | None = None
    samples: int = 128
    length: int | None = None
    column: str = "text"
    perplexity: str | None = None
    windows: int | None = None
    walk: Mapping[str, Any] = field(default_factory=dict)

    def batches(self, opened: Opened, seed: int, trust_remote_code: bool) -> list[dict[str, Any]] | None:
        """Calibration batches, if there is text for them."""
        if self.source is None:
            return None
        return self._text(self.source, opened).crops(opened, self.samples, seed, trust_remote_code)

    def measured(self, opened: Opened, batches: list[dict[str, Any]] | None, trust_remote_code: bool) -> Perplexity | None:
        """What perplexity is measured on, if on anything: the text named for it, or the calibration windows."""
        if self.perplexity is not None:
            if not is_causal(opened.model):
                raise BadInput(f"--perplexity: a {type(opened.model).__name__} is no causal language model")
            text = self._text(self.perplexity, opened)
            return Perplexity(text.windows(opened, self.windows, trust_remote_code), self.perplexity)
        return Perplexity(batches, "the calibration windows") if batches and is_causal(opened.model) else None

    def _text(self, source: str, opened: Opened) -> Text:
        return Text(source, self.length or usual_length(opened.model), self.column)


def prune_with_text(
    opened: Opened, recipe: Recipe, text: Calibrated, walks: bool, out: Path, trust_remote_code: bool, at: Stages
) -> tuple[Pruned, dict[str, Any] | None]:
    """Prune the opened model itself; what was done, and its perplexity before and after.

    The blocks of a walk are kept in a folder beside ``out`` until :func:`done_with` removes it.
    """
    at.begin("text")
    batches = text.batches(opened, recipe.seed, trust_remote_code)
    measured = text.measured(opened, batches, trust_remote_code)
    before = None if measured is None else finite(measured.measure(opened.model))
    at.begin("pruning")
    walking: dict[str, Any] = {}
    if walks:
        walking = {**text.walk, "state": partial_folder(out), "progress": teller(at)}
    done = prune(opened.model, recipe, calibration=batches, inplace=True, **walking)
    if measured is None:
        return done, None
    at.begin("measuring")
    return done, {"before": before, "after": finite(measured.measure(opened.model)), **measured.facts()}


def partial_folder(out: Path) -> Path:
    """Where finished blocks wait: killed, the same command goes on from it."""
    return out.with_name(f"{out.name}.partial")


def done_with(out: Path) -> None:
    """The model is written: its blocks need not be kept."""
    shutil.rmtree(partial_folder(out), ignore_errors=True)


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
