"""The committed list: every architecture by name, from ``architectures.json`` (made by :mod:`benchmarks.coverage.listing`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.coverage import huggingface, plain
from benchmarks.coverage.entry import Entry

__all__ = ["LIST", "chosen", "every", "listed", "tenth"]

LIST = Path(__file__).with_name("architectures.json")


def every() -> Iterator[Entry]:
    """All candidates, whether they export or not."""
    yield from plain.found()
    yield from huggingface.found()


def listed() -> list[Entry]:
    """The architectures of the committed list, in its order, as far as the installed transformers has them."""
    known = {entry.name: entry for entry in every()}
    names = [row["name"] for row in json.loads(LIST.read_text())["architectures"]]
    return [known[name] for name in names if name in known]


def tenth() -> list[Entry]:
    """One of every ten of the list, that which was exported fastest: what a quick test runs."""
    seconds = {row["name"]: row["seconds"] for row in json.loads(LIST.read_text())["architectures"]}
    entries = listed()
    return [min(entries[at : at + 10], key=lambda entry: seconds[entry.name]) for at in range(0, len(entries), 10)]


def chosen(patterns: Iterable[str]) -> list[Entry]:
    """Those of the list whose names hold one of ``patterns`` (none: all)."""
    wanted = list(patterns)
    return [entry for entry in listed() if not wanted or any(pattern in entry.name for pattern in wanted)]
