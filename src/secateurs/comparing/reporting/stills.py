"""The charts as pictures: quality against density and against bytes, one PNG per task."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from secateurs.comparing.reporting.axes import AXES, Axis, Scale, scales, span, tick_text, ticks
from secateurs.comparing.reporting.charts import curves
from secateurs.comparing.reporting.points import Entry, TaskResults
from secateurs.comparing.reporting.styles import Style
from secateurs.extras import require
from secateurs.report.plots import THEMES

__all__ = ["still"]

_PAPER = THEMES["light"]


def still(task: TaskResults, looks: Mapping[str, Style]) -> bytes:
    """A PNG of two plots side by side, in light dress: the first two of the axes, with the scale the page begins with.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    new = require("matplotlib.figure", "compare").Figure
    rows = -(-len(task.arms) // 4)
    figure = new(figsize=(10.5, 4.3 + 0.24 * rows), dpi=130, facecolor=_PAPER.paper, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    scale = scales(task)[0]
    for axes, axis in zip(panels, AXES, strict=False):
        _dress(axes, axis)
        _draw(axes, task, axis, scale, looks)
        places = (axis.of(task, entry) for entry in task.entries if entry is not task.dense)
        _extent(axes.xaxis, *span((place for place in places if place is not None), axis.logarithmic), axis.logarithmic)
    _extent(panels[0].yaxis, *scale.range(task), scale.logarithmic, scale.reversed)
    figure.suptitle(_literal(f"{task.name}: {scale.title}"), x=0.01, ha="left", color=_PAPER.ink, fontsize=13)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=min(4, len(labels)), frameon=False, fontsize=9.5,
                  labelcolor=_PAPER.ink, handlelength=3.2)  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=_PAPER.paper, metadata={"Software": None})
    return buffer.getvalue()


def _dress(axes: Any, axis: Axis) -> None:
    axes.set_facecolor(_PAPER.paper)
    axes.set_xlabel(axis.title, color=_PAPER.ink, fontsize=10.5)
    axes.grid(True, color=_PAPER.faint, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", colors=_PAPER.ink, labelsize=9.5, length=0, pad=5)


def _extent(axis: Any, low: float, high: float, logarithmic: bool, turned: bool = False) -> None:
    """Range and ticks; the ends are swapped where less is better, so that up is better everywhere."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log" if logarithmic else "linear"})
    if logarithmic:
        ticker = require("matplotlib.ticker", "compare")
        axis.set_major_locator(ticker.FixedLocator(ticks(low, high)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick_text(value)))
        axis.set_minor_locator(ticker.NullLocator())
    axis.axes.set(**{f"{axis.axis_name}lim": (high, low) if turned else (low, high)})


def _draw(axes: Any, task: TaskResults, axis: Axis, scale: Scale, looks: Mapping[str, Style]) -> None:
    if task.dense:
        _band(axes, task, task.dense, scale, looks[task.dense.arm])
    for arm, entries in curves(task).items():
        look = looks[arm]
        spots = [(axis.of(task, e), scale.place(task, e.spread("value").mean), e) for e in entries]
        known = [(x, y, (e.spread("value").error or 0.0) * task.metric.scale) for x, y, e in spots if x and y is not None]
        if known:
            x, y, errors = zip(*known, strict=True)
            axes.errorbar(x, y, errors, label=_literal(arm), color=look.light, marker=look.mark, linestyle=look.dashes,
                          linewidth=look.width * 0.8, markersize=6, capsize=2, elinewidth=1.0,
                          markerfacecolor="none" if "open" in look.marker else look.light)  # fmt: skip


def _band(axes: Any, task: TaskResults, dense: Entry, scale: Scale, look: Style) -> None:
    values = dense.spread("value")
    error = values.error or 0.0
    low, middle, high = (scale.place(task, value) for value in (values.mean - error, values.mean, values.mean + error))
    if middle is not None:
        axes.axhline(middle, color=look.light, linewidth=look.width, label=_literal(dense.arm))
        axes.axhspan(low if low is not None else middle, high if high is not None else middle, color=look.light, alpha=0.14,
                     linewidth=0)  # fmt: skip


def _literal(text: str) -> str:
    """As text that is drawn as it stands: between two dollar signs matplotlib would read a formula."""
    return text.replace("$", r"\$")
