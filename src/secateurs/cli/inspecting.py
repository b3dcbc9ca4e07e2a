"""``secateurs inspect``: what is in a model, what would be pruned, and why the rest would not."""

from __future__ import annotations

from typing import Any

from secateurs.cli.opening import Opened, Source
from secateurs.cli.showing import bytes_text, dump, facts, shape_text, share, show, stages
from secateurs.cli.writing import stored_bytes
from secateurs.core.pq_index import pq_index
from secateurs.measure import sizes
from secateurs.models import Survey, inspect_rows, select, survey
from secateurs.report import Table

__all__ = ["inspect_model"]


def inspect_model(source: Source, chosen: dict[str, tuple[str, ...]], as_json: bool) -> None:
    """Print every parameter of the model, in its order, and the totals."""
    with stages(2) as at:
        at.begin("opening")
        opened = source.open()
        at.begin("counting")
        found = survey(opened.model)
        if any(chosen.values()):
            found = select(found, **chosen)
        rows, totals = _with_index(inspect_rows(found), found), _totals(opened)
    if as_json:
        what = {"model": str(source.path), "kind": opened.kind, "class": type(opened.model).__name__}
        dump({**what, "layers": rows, "totals": totals})
        return
    _show(rows, totals, opened)


def _with_index(rows: list[dict[str, Any]], found: Survey) -> list[dict[str, Any]]:
    """Each prunable weight with the PQ index (p = 0.5, q = 1) of its entries that are not zero: near 0 where all are alike."""
    weights = {weight.name: weight.parameter for weight in found.weights}
    return [{**row, "pq_index": pq_index(weights[row["name"]], zeros=False) if row["prunable"] else None} for row in rows]


def _totals(opened: Opened) -> dict[str, Any]:
    size = sizes(opened.model)
    return {"parameters": size.parameters, "nonzero": size.nonzero, "sparsity": size.sparsity, "dense_bytes": size.dense_bytes,
            "paper_bytes": size.paper_bytes, "file_bytes": stored_bytes(opened.path)}  # fmt: skip


def _show(rows: list[dict[str, Any]], totals: dict[str, Any], opened: Opened) -> None:
    weights = [row for row in rows if row["prunable"]]
    left = [row for row in rows if not row["prunable"]]
    if weights:
        lines = tuple((r["name"], r["kind"], shape_text(r["shape"]), f"{r['size']:,}", share(r["sparsity"]),
                       f"{r['pq_index']:.3f}") for r in weights)  # fmt: skip
        show(Table(("would be pruned", "kind", "shape", "weights", "zero now", "PQ index"), (lines,), left=2))
    if left:
        show(Table(("left alone because", "tensors", "entries", "such as"), (_by_reason(left),), left=4))
    size = sum(row["size"] for row in weights)
    zeros = sum(row["zeros"] for row in weights)
    facts({
        "model": f"{type(opened.model).__name__} from {opened.path}",
        "prunable": f"{size:,} of {totals['parameters']:,} parameters; zero now: {zeros:,} ({share(zeros / max(size, 1))})",
        "bytes": f"dense {bytes_text(totals['dense_bytes'])}, files {bytes_text(totals['file_bytes'])}, "
                 f"by the paper's accounting {bytes_text(totals['paper_bytes'])}",
    })  # fmt: skip


def _by_reason(left: list[dict[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """One line per reason: vectors and norms come in dozens."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in left:
        groups.setdefault(row["reason"], []).append(row)
    return tuple((why, str(len(rows)), f"{sum(r['size'] for r in rows):,}", rows[0]["name"]) for why, rows in groups.items())
