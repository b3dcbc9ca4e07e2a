"""The figure of a model: its metric against bytes, narrow dense networks and the large one pruned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs.report import Metric, curve_png

__all__ = ["draw"]

CURVES = {"all": "large, pruned gradually", "dense": "small dense", "layerwise": "layer by layer", "global": "one ranking"}
BYTES = Metric("payload_bytes", "bytes stored", "kB (logarithmic)", scale=1e-3, repeated=False)


def draw(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write a PNG of one model's ``records`` to ``path``."""
    rows = [_row(record) for record in records]
    names = {curve: name for curve, name in CURVES.items() if any(row["method"] == curve for row in rows)}
    first = records[0]
    metric = Metric("test", f"{first['model']}: test {first['metric']}", f"{first['better']} is better")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(curve_png(rows, metric, BYTES, names=names))


def _row(record: dict[str, Any]) -> dict[str, Any]:
    mark = f"{100 * record['sparsity']:g} %" if record["sparsity"] else f"w {record['width']:.3g}"
    method = record["order"] or "dense"
    return {**record, "method": method, "label": f"{method} {mark}", "mark": mark}
