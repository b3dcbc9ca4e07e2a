"""The charts of the page as plain data for plotly: quality against density, bytes, multiply-adds, latency and training cost.

A chart is one figure per task with several horizontal axes to choose from, and for a percentage further vertical ones: the
logarithm of what is missing to 100 % tells good models apart that lie on one line beside a ruined one.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from secateurs.comparing.reporting.axes import Axis, Scale, density, scales, span, tick_text, ticks, usable
from secateurs.comparing.reporting.points import Entry, TaskResults
from secateurs.comparing.reporting.styles import Style
from secateurs.report.rows import Spread

__all__ = ["chart", "curves", "hover"]

Lines = Mapping[str, Sequence[Entry]]
Places = list[float | None]


def curves(task: TaskResults) -> dict[str, list[Entry]]:
    """The entries of every arm but the dense one, which is a band and no curve."""
    found: dict[str, list[Entry]] = {arm: [] for arm in task.arms}
    for entry in task.entries:
        if entry is not task.dense:
            found[entry.arm].append(entry)
    return {arm: entries for arm, entries in found.items() if entries}


def chart(task: TaskResults, looks: Mapping[str, Style]) -> dict[str, Any]:
    """Traces without places, and the places for each axis and scale: what the page's script puts together."""
    lines = curves(task)
    traces = [_trace(arm, entries, task, looks[arm]) for arm, entries in lines.items()]
    if task.dense:
        traces = [*_dense_traces(task, task.dense, looks[task.dense.arm]), *traces]
    return {"traces": traces, "x": [_across(task, axis, lines) for axis in usable(task)],
            "y": [_upward(task, scale, lines) for scale in scales(task)]}  # fmt: skip


def hover(task: TaskResults, entry: Entry) -> str:
    """What stands beside a point: the mean, what it costs, and every run by name with its raw value. Markup is escaped."""
    metric = task.metric
    unit, seeds = f" {metric.unit}" if metric.unit else "", len(entry.seeds)
    lines = [f"{metric.title} {metric.show(entry.spread('value'))}{unit}, {seeds} {'seed' if seeds == 1 else 'seeds'}"]
    if before := [row["before"] for row in entry.rows if row.get("before") is not None]:
        lines.append(f"before training {metric.show(Spread(tuple(before)))}{unit}")
    lines.append(f"{entry.mean('bytes') or 0:,.0f} bytes, {density(task, entry) or 0:.3g} % of the parameters")
    lines += [f"{metric.show(Spread((row['value'],)))}  {row['run']}" for row in entry.rows]
    head = html.escape(entry.arm + (f" at {entry.point}" if entry.point else ""))
    return "<br>".join([f"<b>{head}</b>", *map(html.escape, lines)])


def _trace(arm: str, entries: Sequence[Entry], task: TaskResults, look: Style) -> dict[str, Any]:
    return {
        **_common(arm, look), "mode": "lines+markers", "text": [hover(task, entry) for entry in entries],
        "hovertemplate": "%{text}<extra></extra>", "line": {"dash": look.dash, "width": look.width},
        "error_y": {"type": "data", "thickness": 1.3, "width": 3},
        "marker": {"symbol": look.marker, "size": 9, "line": {"width": 1.6 if "open" in look.marker else 0}},
    }  # fmt: skip


def _dense_traces(task: TaskResults, dense: Entry, look: Style) -> list[dict[str, Any]]:
    """A band of one standard error, and the line of the mean; the legend switches both."""
    said = hover(task, dense)
    band = {"mode": "lines", "fill": "toself", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip", "band": True}
    line = {"mode": "lines", "line": {"width": look.width, "dash": look.dash}, "text": [said, said],
            "hovertemplate": "%{text}<extra></extra>"}  # fmt: skip
    return [{**_common(dense.arm, look), **kind} for kind in (band, line)]


def _common(arm: str, look: Style) -> dict[str, Any]:
    name = html.escape(arm)  # plotly reads tags in names; so it is given text that has none
    return {"type": "scatter", "name": name, "legendgroup": name, "meta": {"light": look.light, "dark": look.dark}}


def _across(task: TaskResults, axis: Axis, lines: Lines) -> dict[str, Any]:
    """A horizontal axis with the places of all traces on it; the dense band spans the plot."""
    places = [[axis.of(task, entry) for entry in entries] for entries in lines.values()]
    low, high = span((place for line in places for place in line if place is not None), axis.logarithmic)
    if task.dense:
        places = [[low, high, high, low], [low, high], *places]
    return {"label": axis.label, "title": axis.title, "values": places, **_extent(low, high, axis.logarithmic)}


def _upward(task: TaskResults, scale: Scale, lines: Lines) -> dict[str, Any]:
    """A vertical axis with the heights of all traces, and their standard errors in its units."""
    heights: list[Places] = [[scale.place(task, e.spread("value").mean) for e in entries] for entries in lines.values()]
    errors: list[list[float] | None] = [[(entry.spread("value").error or 0.0) * task.metric.scale for entry in entries]
                                        for entries in lines.values()]  # fmt: skip
    if task.dense:
        heights = [*_dense_heights(task, task.dense, scale), *heights]
        errors = [None, None, *errors]
    return {"label": scale.label, "title": html.escape(scale.title), "values": heights, "errors": errors,
            "reversed": scale.reversed, **_extent(*scale.range(task), scale.logarithmic)}  # fmt: skip


def _dense_heights(task: TaskResults, dense: Entry, scale: Scale) -> list[Places]:
    values = dense.spread("value")
    error = values.error or 0.0
    low, middle, high = (scale.place(task, values.mean + side * error) for side in (-1, 0, 1))
    return [[low, low, high, high], [middle, middle]]


def _extent(low: float, high: float, logarithmic: bool) -> dict[str, Any]:
    marks = ticks(low, high) if logarithmic else None
    return {"log": logarithmic, "range": [low, high], "ticks": marks, "texts": [tick_text(mark) for mark in marks or ()]}
