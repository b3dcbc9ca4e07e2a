"""The language model's section of the results page, from ``benchmarks/results/language/results.jsonl`` alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.language.blocks import RESULTS as BLOCKS
from benchmarks.language.grid import ALLOCATIONS, CALIBRATED, DOMAINS, MAGNITUDE, MIXED, POINTS, UNIFORM
from benchmarks.language.rows import Row, Rows, mean
from secateurs.errors import BadInput
from secateurs.report import Table

__all__ = ["RESULTS", "section"]

RESULTS = Path(__file__).parents[1] / "results" / "language" / "results.jsonl"
_ORDINALS = {1: "st", 2: "nd", 3: "rd"}
METHODS = (MAGNITUDE, *CALIBRATED)
ORDERED = "60 %"
WORDS = ("pruned", "calibrated on", "allocation")  # headings of second columns that hold no numbers

INTRODUCTION = """\
## Language models in one shot

A Llama of 7 M parameters, trained on English and German captions, the Brown corpus and Python, and pruned inside its blocks
without training; the embedding, which is the output layer too, stays dense. Calibrated methods see {tokens:,} tokens of
training text, where it is mixed a quarter of each domain. Perplexity is that of validation text in windows of {length} tokens,
each judged by itself{judged}; "mean" is the geometric mean over the domains.
"""


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results, or the dense model is not among them.
    """
    if not results.is_file():
        raise BadInput(f"no results in {str(results)!r}: run python -m benchmarks.language.run first")
    rows = Rows.read(results)
    parts = [_introduction(rows), *_by_method(rows), *_over_seeds(rows), *_by_allocation(rows), *_by_calibration(rows)]
    return "\n".join(parts)


def _introduction(rows: Rows) -> str:
    counts = rows.dense["windows"]
    limit = rows.dense["most_windows"]
    judged = ", all of them (" + ", ".join(f"{n} of {d}" for d, n in counts.items()) + ")"
    if limit is not None:
        judged = f", {limit} at equal distances of each domain, the same for all models"
    tokens = max((row["tokens"] for row in rows.pruned), default=0)
    return INTRODUCTION.format(tokens=tokens, length=rows.dense["length"], judged=judged)


def _by_method(rows: Rows) -> list[str]:
    found = [(point, method, row) for point in POINTS for method in METHODS if (row := rows.at(method, point))]
    if not found:
        return []
    lines = [["dense", "", *_values(rows.dense), ""]]
    lines += [[method, point, *_values(row), f"{row['seconds']:.0f} s"] for point, method, row in found]
    head = ["method", "pruned", *DOMAINS, "mean", "pruning took"]
    threads, processors = (" or ".join(sorted({str(row[key]) for _, _, row in found})) for key in ("threads", "cpus"))
    note = f"Times: {threads} thread(s) of {processors} processors that had other work too; an impression, not a measurement.\n"
    return ["### By method and amount, calibrated on mixed text\n", _table(head, lines), _bullets(_best(rows)), note]


def _best(rows: Rows) -> Iterable[str]:
    """Which method loses least at every amount, and how much."""
    dense = rows.dense["geometric_mean"]
    for point in POINTS:
        there = {method: row["geometric_mean"] for method in METHODS if (row := rows.at(method, point))}
        order = sorted(there, key=lambda method: there[method])
        if len(order) > 1:
            said = ", ".join(f"{method} {there[method] / dense:.3f}" for method in order)
            yield f"{point}: mean perplexity as a multiple of the dense model's: {said}."


def _over_seeds(rows: Rows) -> list[str]:
    seeds = sorted({row["seed"] for row in rows.pruned if row["point"] == ORDERED and row["calibration"] == MIXED})
    whole = [method for method in METHODS if seeds and all(rows.at(method, ORDERED, seed=seed) for seed in seeds)]
    if len(seeds) < 2 or len(whole) < 2:
        return []
    means = {method: [rows.at(method, ORDERED, seed=seed)["geometric_mean"] for seed in seeds] for method in whole}
    lines = [[m, *(f"{v:.2f}" for v in values), f"{sum(values) / len(values):.2f}"] for m, values in means.items()]
    head = ["method", *(f"seed {seed}" for seed in seeds), "average"]
    return [f"### {ORDERED} over seeds of the calibration text\n", _table(head, lines), _bullets(_orders(means))]


def _orders(means: dict[str, list[float]]) -> Iterable[str]:
    """For neighbours in the order of the averages: in how many seeds they stand in that order."""
    order = sorted(means, key=lambda method: sum(means[method]))
    for better, worse in pairwise(order):
        pairs = list(zip(means[better], means[worse], strict=True))
        times, gap = sum(a < b for a, b in pairs), sum(b - a for a, b in pairs) / len(pairs)
        yield f"{better} is below {worse} in {times} of {len(pairs)} seeds, on average by {gap:.2f}."
    low = {method: max(values) - min(values) for method, values in means.items() if method != MAGNITUDE}
    if low:
        yield "From seed to seed the mean moves by up to " + ", ".join(f"{v:.2f} ({m})" for m, v in low.items()) + "."


def _by_allocation(rows: Rows) -> list[str]:
    """How much goes from which block, at one amount on mixed text."""
    found = {(m, a): row for m in METHODS for a in (UNIFORM, *ALLOCATIONS) if (row := rows.at(m, ORDERED, allocation=a))}
    told = [method for method, allocation in found if allocation != UNIFORM]
    if not told:
        return []
    lines = [[method, allocation, *_values(row)] for (method, allocation), row in found.items() if method in told]
    head = ["method", "allocation", *DOMAINS, "mean"]
    blocks = _blocks(BLOCKS) if BLOCKS.is_file() else []
    return [f"### {ORDERED}, by how much goes from which block\n", _table(head, lines), *blocks]


def _blocks(results: Path) -> list[str]:
    """What a block costs alone, beside the share that the allocations take from it."""
    found = json.loads(results.read_text(encoding="utf-8"))["blocks"]
    head = ["block", f"alone at {found['sparsity']:.0%}", *(f"{name} takes" for name in found["shares"])]
    lines = [[str(i), f"{alone:.3f}", *(f"{shares[i]:.1%}" for shares in found["shares"].values())]
             for i, alone in enumerate(found["alone"])]  # fmt: skip
    said = (f"By {found['method']}: the mean perplexity where this block alone is pruned, as a multiple of the dense model's "
            f"({found['windows']} windows of each), and the share of its weights that goes where all are.\n")  # fmt: skip
    return [said, _table(head, lines), _bullets(_against(found))]


def _against(found: dict[str, Any]) -> Iterable[str]:
    """Whether an allocation spares what costs most."""
    order = sorted(range(len(found["alone"])), key=lambda i: -found["alone"][i])
    dearest = order[0]
    for name, shares in found["shares"].items():
        rank = sorted(range(len(shares)), key=lambda i: -shares[i]).index(dearest) + 1
        yield (f"{name} takes {shares[dearest]:.1%} from block {dearest}, which costs most alone; that is its "
               f"{rank}{_ORDINALS.get(rank, 'th')} largest share of {len(shares)}.")  # fmt: skip


def _by_calibration(rows: Rows) -> list[str]:
    texts = (*DOMAINS, MIXED)
    parts = []
    for point in POINTS:
        found = {m: there for m in CALIBRATED if (there := [t for t in texts if rows.at(m, point, t)]) and there != [MIXED]}
        if not found:
            continue
        lines = [[m, text, *_values(rows.at(m, point, text), own=text)] for m, there in found.items() for text in there]
        head = ["method", "calibrated on", *DOMAINS, "mean"]
        parts += [f"### {point}, by calibration text\n", _table(head, lines), _bullets(_own_and_foreign(rows, point, found))]
    return [*parts, "Bold: the domain the model was calibrated on.\n"] if parts else []


def _own_and_foreign(rows: Rows, point: str, methods: Iterable[str]) -> Iterable[str]:
    """What calibration on the domain itself is worth, where all four single domains are there."""
    for method in methods:
        found = {text: rows.at(method, point, text) for text in DOMAINS}
        if not all(found.values()):
            continue
        loss = {(text, judged): rows.loss(found[text], judged) for text in DOMAINS for judged in DOMAINS}
        own = mean(value for (text, judged), value in loss.items() if text == judged)
        foreign = mean(value for (text, judged), value in loss.items() if text != judged)
        best = [judged for judged in DOMAINS if min(DOMAINS, key=lambda text: loss[text, judged]) == judged]
        mixed = rows.at(method, point)
        also = f", on mixed text {mean(rows.loss(mixed, d) for d in DOMAINS):.3f} times" if mixed else ""
        yield (f"{method}: calibrated on a domain itself, its perplexity is {own:.3f} times the dense model's; calibrated on "
               f"another domain {foreign:.3f} times{also}. On {len(best)} of {len(DOMAINS)} domains its own text is the best "
               f"of the four{_but(best)}.")  # fmt: skip


def _but(best: Sequence[str]) -> str:
    others = [domain for domain in DOMAINS if domain not in best]
    return f" (not on {', '.join(others)})" if others and best else ""


def _values(row: Row, own: str | None = None) -> list[str]:
    cells = [f"**{value:.2f}**" if domain == own else f"{value:.2f}" for domain, value in row["perplexity"].items()]
    return [*cells, f"{row['geometric_mean']:.2f}"]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    words = 1 + (head[1] in WORDS)
    return Table(tuple(head), (tuple(map(tuple, lines)),), words).markdown()


def _bullets(sentences: Iterable[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)
