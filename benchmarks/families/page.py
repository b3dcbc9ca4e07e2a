"""The families' section of the results page and its figures, made from the JSON Lines alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.families import results
from benchmarks.families.compare import Comparison, Point, compared, half_range, large, points
from benchmarks.families.figure import draw
from secateurs.comparing.reporting.words import listed
from secateurs.errors import BadInput

__all__ = ["section"]

ROOT = Path(__file__).parents[2]
RESULTS, IMAGES = ROOT / "benchmarks" / "results" / "families", ROOT / "docs" / "img"
TITLES = {"cifar": "Image classification: CIFAR-10", "lstm": "Language modelling: two-layer word LSTM on Brown",
          "translation": "Translation: English to German on Multi30k"}  # fmt: skip
WORTH = {"top-1 %": "points of top-1 accuracy", "perplexity": "of perplexity", "BLEU": "BLEU"}

SAYS = {"sparse": "the large sparse network is better", "dense": "the small dense is better", "neither": "the seeds disagree"}

INTRODUCTION = """\
## Large-sparse against small-dense

The question of Zhu and Gupta (2017), on their three families and smaller data (CIFAR-10 for ImageNet, Brown for Penn
Treebank, Multi30k for WMT16): given a number of bytes, is a large network pruned gradually while it trains better than a
narrow one trained dense? The sparse network and its rival see the same batches for the same number of steps. Bytes are those
of the stored tensors, each dense or as bit mask and values, whichever is smaller; the rival is the narrowest dense network
with at least as many. Values are means on the test split, evaluated once at the end of training, and ± is half the range over
the seeds. The gain is positive where the sparse network is better, taken seed by seed; a side wins if it is better on every
seed. *Average density* is the share of the prunable weights alive, averaged over the training steps.
"""


def section(results_dir: Path = RESULTS, images: Path = IMAGES) -> str:
    """The section as Markdown; writes one figure per model to ``images``.

    Raises:
        BadInput: there are no results.
    """
    files = sorted(Path(results_dir).glob("*.jsonl"), key=lambda path: path.stem)
    if not files:
        raise BadInput(f"no results in {str(results_dir)!r}: the records of the families are part of the repository")
    return "\n".join([INTRODUCTION, *(_family(path, Path(images)) for path in files)])


def _family(path: Path, images: Path) -> str:
    models = by_model(results.read(path))
    first = next(iter(models.values()))[0]
    title = TITLES.get(first["family"], first["family"])
    rest = path.stem.removeprefix(f"{first['family']}-{first['size']}").replace("-", " ").strip()
    heading = f"### {title} ({first['size']} size{rest and ', '}{rest})\n"
    drawn = {model: images / f"families-{path.stem}-{model}.png" for model in models}
    return "\n".join([heading, *(_model(model, records, drawn[model]) for model, records in models.items())])


def by_model(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records by model, in the order of the models' names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda r: r["model"]):
        found.setdefault(record["model"], []).append(record)
    return found


def _model(model: str, records: list[dict[str, Any]], image: Path) -> str:
    first, found = records[0], points(records)
    pairs = [c for c in compared(found, first["better"]) if c.sparse.order == "all"]
    whole = large(found)
    draw(image, records)
    lines = [f"**{model}**: {_settings(records)}\n", f"![{first['metric']} against bytes](img/{image.name})\n",
             f"The large model, dense: {_value(whole)} {first['metric']} in {_size(whole.bytes)}.\n",
             f"| sparsity | sparse {first['metric']} | bytes | paper's bytes | non-zeros | average density "
             "| dense rival | its bytes | its value | gain | better |",
             "|---|---|---|---|---|---|---|---|---|---|---|", *map(_row, pairs), "", _sentence(pairs, first), ""]  # fmt: skip
    return "\n".join(lines + _orders(found, first) + [_shrunk(first), ""])


def _row(c: Comparison) -> str:
    s, d = c.sparse, c.dense
    cells = [_share(s), _value(s), _size(s.bytes), _size(s.paper_bytes), f"{s.nonzeros:,.0f}", f"{s.density:.3f}",
             f"width {d.width:g}", _size(d.bytes), _value(d), f"{c.gain:+.2f} ± {half_range(c.gains):.2f}",
             c.winner]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _sentence(pairs: Sequence[Comparison], first: dict[str, Any]) -> str:
    """What the table says, in words that follow from its numbers."""
    won = {side: [_share(c.sparse) for c in pairs if c.winner == side] for side in SAYS}
    parts = [f"at {listed(where)} {SAYS[side]}" for side, where in won.items() if where]
    if not parts:
        return "No sparse model has a rival of equal bytes yet."
    best = max(pairs, key=lambda c: abs(c.gain))
    widest = f"the widest gap is {best.gain:+.2f} {WORTH.get(first['metric'], '')}".rstrip()
    return f"At equal bytes, {'; '.join(parts)}; {widest}, at {_share(best.sparse)}."


def _orders(found: Sequence[Point], first: dict[str, Any]) -> list[str]:
    """The orders of the layers side by side, where more than one was run."""
    others = sorted({p.sparsity for p in found if p.order not in (None, "all")})
    if not others:
        return []
    order = {"all": 0, "layerwise": 1, "global": 2}
    lines = ["The order of the layers: all at once, one after another within an interval, or one ranking over all of them.\n",
             f"| sparsity | order | {first['metric']} | bytes | average density |", "|---|---|---|---|---|"]  # fmt: skip
    for p in sorted((p for p in found if p.sparsity in others), key=lambda p: (p.sparsity, order.get(p.order or "", 3))):
        lines.append(f"| {_share(p)} | {p.order} | {_value(p)} | {_size(p.bytes)} | {p.density:.3f} |")
    return [*lines, ""]


def _settings(records: list[dict[str, Any]]) -> str:
    r, seeds = records[0], len({r["seed"] for r in records})
    precision = "; training in bfloat16 autocast, evaluation in float32" if r["bfloat16"] else ""
    said = f"{r['steps']:,} steps of {r['batch']}, {r['optimizer']} at {r['lr']:g}, {seeds} seed{'s' * (seeds > 1)}"
    when = f"pruned every {r['every']} steps from {100 * r['begin']:g} % to {100 * r['end']:g} % of training"
    return f"{said}; {when}{precision}."


def _shrunk(first: dict[str, Any]) -> str:
    """What is smaller than in the paper's setting."""
    if not first.get("shrunk"):
        return "Nothing was shrunk."
    said = "; ".join(f"{name} {_said(here)} (for {_said(there)})" for name, (here, there) in first["shrunk"].items())
    return f"Shrunk, here against the paper's shape: {said}."


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:g}" for k, v in value.items()) or "as published"
    if isinstance(value, list):
        return ", ".join(f"{v:g}" for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _share(p: Point) -> str:
    return f"{100 * p.sparsity:g} %"


def _value(p: Point) -> str:
    return f"{p.mean:.2f} ± {p.spread:.2f}"


def _size(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count:.0f} B"


if __name__ == "__main__":
    sys.stdout.write(section())
