"""The figure of a family: the metric against bytes, dense widths and pruned models, one panel per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.families.compare import Point, dense_points, points

__all__ = ["draw"]


def draw(path: Path, models: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Write a PNG to ``path``; ``models`` are the records by model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(models), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (model, records) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        found = points(records)
        _line(axes, dense_points(found), "dense, by width", "o-", "tab:gray")
        _line(axes, [p for p in found if p.order == "all"], "large, pruned gradually", "s-", "tab:green")
        for order, mark, colour in (("layerwise", "^", "tab:blue"), ("global", "v", "tab:orange")):
            _line(axes, [p for p in found if p.order == order], f"pruned, {order}", mark, colour)
        axes.set(title=model, xscale="log", xlabel="bytes stored", ylabel=f"{records[0]['metric']}, test")
        if records[0]["better"] == "lower":
            axes.set_yscale("log")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _line(axes: Any, some: Sequence[Point], label: str, style: str, colour: str) -> None:
    if some:
        axes.errorbar([p.bytes for p in some], [p.mean for p in some], yerr=[p.spread for p in some], fmt=style, color=colour,
                      label=label, capsize=3, markersize=5)  # fmt: skip
