"""The page of one pruning: what was done, what it cost, what was left alone, what was proved. From plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from secateurs.report.page import Page, Section, render_page
from secateurs.report.panel import Group, Panel
from secateurs.report.tables import Table
from secateurs.report.words import bytes_text, shape_text, share
from secateurs.version import __version__

__all__ = ["block_of", "pruning_page"]

Told = Mapping[str, Any]


def pruning_page(told: Told) -> str:
    """A page of HTML that needs nothing else, of what ``secateurs prune --json`` says.

    Keys: ``report`` (rows, the last of them the total), ``recipe``, ``verified``, ``out``; and where there is something to
    say ``model``, ``source``, ``command``, ``calibration``, ``sizes``, ``perplexity``, ``left``, ``rare``, ``memory``,
    ``speed``. Everything is shown as text.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    total, recipe = told["report"][-1], told["recipe"]
    what = told.get("model") or "A model"
    pattern = recipe.get("structure") or "element"
    how = "one by one" if pattern == "element" else f"in the pattern {pattern}"
    opening = f"{total['removed']:,} of {total['size']:,} chosen weights were removed ({share(total['sparsity'])}), {how}."
    checks = [(bool(c["ok"]), f"{c['name']}: {c['detail']}") for c in told["verified"]["checks"]]
    made = (_before_after, _blocks, _left, _rare, _memory, _done, _layers)
    sections = tuple(section for make in made if (section := make(told)) is not None)
    return render_page(Page(f"{what}, pruned by {recipe['method']}", opening, sections, (*checks, *_kept(told)),
                            f"Written by secateurs {__version__} into {told['out']}."))  # fmt: skip


def block_of(layer: str) -> tuple[str, str]:
    """The list and the number of the block a layer lies in, by its name; for one outside of lists its name and ``""``."""
    found = re.match(r"(?:(.*?)\.)?(\d+)\.", layer)
    return (found[1] or "", found[2]) if found else (layer, "")


def _before_after(told: Told) -> Section | None:
    """What it was and what it is, and by which convention perplexity was measured."""
    before, after = ((told.get("sizes") or {}).get(key, {}) for key in ("before", "after"))
    lines = []
    judged = told.get("perplexity")
    if judged:
        values = ("infinite" if judged[key] is None else f"{judged[key]:.4f}" for key in ("before", "after"))
        lines.append(("perplexity", *values))
    if "nonzero" in before:
        zeros = (one["parameters"] - one["nonzero"] for one in (before, after))
        lines.append(("zeros among all parameters", *(f"{n:,} ({share(n / before['parameters'])})" for n in zeros)))
    if "stored_bytes" in after:
        lines.append(("bytes of the weights on disk", bytes_text(before["stored_bytes"]), bytes_text(after["stored_bytes"])))
    if not lines:
        return None
    said = [f"Perplexity on {judged['text']}, {judged['windows']} windows of {judged['length']} tokens: {judged['convention']}."
            ] if judged else []  # fmt: skip
    said += [f"Speed: {told['speed']}."] if told.get("speed") else []
    return Section("Before and after", tuple(said), Table(("", "before", "after"), (tuple(lines),)))


def _blocks(told: Told) -> Section | None:
    """A picture of what went from where, and of the error that it made."""
    rows = told["report"][:-1]
    if len(rows) < 2:
        return None
    panels = [Panel("Removed, share of the block's chosen weights", tuple(_groups(rows, _removed)), percent=True, top=1.0)]
    if any("error" in row for row in rows):
        panels.append(Panel("Output error of each layer, share of its squared output", tuple(_groups(rows, _errors)), "dots"))
    return Section("Over the blocks", panels=tuple(panels))


def _groups(rows: Sequence[Told], values: Any) -> Iterator[Group]:
    by_block: dict[tuple[str, str], list[Told]] = {}
    for row in rows:
        by_block.setdefault(block_of(row["name"]), []).append(row)
    several = len({path for path, _ in by_block}) > 1
    last = None
    for (path, number), members in by_block.items():
        under = path if several and number and path != last else ""
        yield Group(number or path, tuple(values(f"{path}.{number}".strip("."), members)), under)
        last = path


def _removed(block: str, rows: Sequence[Told]) -> list[tuple[str, float]]:
    return [(block, sum(row["removed"] for row in rows) / sum(row["size"] for row in rows))]


def _errors(block: str, rows: Sequence[Told]) -> list[tuple[str, float]]:
    return [(row["name"], row["error"]) for row in rows if "error" in row]


def _layers(told: Told) -> Section:
    """A line per layer and for all of them."""
    errors = any("error" in row for row in told["report"])
    lines = tuple(
        (row["name"], shape_text(row["shape"] or ()), f"{row['size']:,}", f"{row['kept']:,}", share(row["sparsity"]),
         *([f"{row['error']:.4f}" if "error" in row else ""] if errors else []))
        for row in told["report"]
    )  # fmt: skip
    heads = ("layer", "shape", "weights", "kept", "removed", *(["error"] if errors else []))
    caption = ("Error is a layer's squared output error on the calibration data as a share of its squared output, with the "
               "inputs the layer has behind its pruned predecessors." if errors else "")  # fmt: skip
    return Section("Every layer", table=Table(heads, (lines[:-1], lines[-1:]), left=2, caption=caption))


def _left(told: Told) -> Section | None:
    """By reason, what was not touched."""
    by_reason: dict[str, list[Told]] = {}
    for one in told.get("left") or ():
        by_reason.setdefault(one["reason"], []).append(one)
    lines = [(reason, f"{len(own):,}", f"{sum(one['size'] for one in own):,}", _some(one["name"] for one in own))
             for reason, own in by_reason.items()]  # fmt: skip
    if not lines:
        return None
    return Section("Left alone", table=Table(("reason", "tensors", "values", "which"), (tuple(lines),), wrap=True))


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _rare(told: Told) -> Section | None:
    """Experts that saw too little to be judged well."""
    lines = tuple((name, str(expert), f"{tokens:,}") for name, expert, tokens in told.get("rare") or ())
    if not lines:
        return None
    why = "These experts got less than a tenth of an even share of the tokens. Calibrate with more, or exclude them."
    return Section("Rare experts", (why,), Table(("weight", "expert", "tokens"), (lines,)))


def _memory(told: Told) -> Section | None:
    """What the process held, where a budget was set."""
    use = told.get("memory")
    if not use:
        return None
    peak = "not measured: this system does not tell" if use["peak_bytes"] is None else bytes_text(use["peak_bytes"])
    lines = (("allowed", bytes_text(use["budget_bytes"])), ("highest", peak))
    caption = "Of this process's own memory (RssAnon and RssShmem, sampled); pages of mapped files are not counted."
    return Section("Memory", table=Table(("", "bytes"), (lines,), caption=caption))


def _kept(told: Told) -> Iterator[tuple[bool, str]]:
    use = told.get("memory")
    if use and use["kept"] is not None:
        yield bool(use["kept"]), f"memory: at most {bytes_text(use['peak_bytes'])} of {bytes_text(use['budget_bytes'])} allowed"


def _done(told: Told) -> Section:
    """How to do it again."""
    facts = (("From", "source"), ("Calibrated on", "calibration"))
    said = tuple(f"{word} {told[key]}." for word, key in facts if told.get(key))
    settings = [f"{key}: {json.dumps(value)}" for key, value in told["recipe"].items() if value not in (None, (), [], {}, "")]
    command = [f"{told['command']}\n"] if told.get("command") else []
    return Section("What was done", said, code="\n".join([*command, *settings]))
