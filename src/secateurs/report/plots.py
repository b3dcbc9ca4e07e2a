"""Quality against size as a PNG, in a light and a dark dress. Figures are built without pyplot, so nothing global changes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateurs.errors import BadInput, near
from secateurs.extras import require
from secateurs.report.rows import Metric, Row, group, spread

__all__ = ["THEMES", "Theme", "curve_png", "plain_axes"]


@dataclass(frozen=True)
class Theme:
    """Colours of one dress; ``series`` in the order of the curves."""

    paper: str
    ink: str
    faint: str
    series: tuple[str, ...]


# Okabe and Ito's palette, safe for colour-blind readers; the dark dress takes its lighter members.
THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#d5d9de", ("#d55e00", "#0072b2", "#009e73", "#cc79a7")),
    "dark": Theme("#161a1f", "#e6e8ea", "#3a4048", ("#e69f00", "#56b4e9", "#2ec4a0", "#e39ac4")),
}
_MARKERS = "osD^"


@dataclass(frozen=True)
class _Point:
    """The runs of one label: where they stand on the axis, their values, what is written beside them."""

    x: float
    values: tuple[float, ...]
    mark: str

    @property
    def y(self) -> float:
        return sum(self.values) / len(self.values)


def curve_png(
    rows: Sequence[Row], metric: Metric, size: Metric, *, names: Mapping[str, str], title: str = "", theme: str = "light"
) -> bytes:
    """A PNG of ``metric`` against ``size`` (logarithmic), a curve per method, drawn through the means of its labels.

    Every run is a dot and a bar spans the runs of a label. Curves are named above the plot in their own colours; the optional
    row key ``mark`` is written beside its point.

    Args:
        rows: with ``method``, ``label``, ``metric.key`` and ``size.key``.
        names: the methods to draw, in the order of their colours, and what to call them.
        theme: ``"light"`` or ``"dark"``.

    Raises:
        BadInput: an unknown theme, a method without rows, or more methods than colours.
    """
    if theme not in THEMES:
        raise BadInput(f"theme={theme!r} is unknown; use one of {', '.join(THEMES)}" + near(theme, THEMES))
    dress, by_method = THEMES[theme], group(rows, "method")
    if missing := [method for method in names if method not in by_method]:
        raise BadInput(f"no rows of method {missing[0]!r} to draw; there are {', '.join(map(str, by_method))}")
    if len(names) > len(dress.series):
        raise BadInput(f"{len(names)} curves in one plot: draw at most {len(dress.series)}")
    new = require("matplotlib.figure", "plots").Figure
    figure = new(figsize=(5.2, 4.0), dpi=220, facecolor=dress.paper, layout="constrained")
    axes = figure.add_subplot()
    _dress(axes, dress, metric, size, title, len(names))
    curves = [_points(by_method[method], metric, size) for method in names]
    for i, (points, name) in enumerate(zip(curves, names.values(), strict=True)):
        _draw(axes, points, name, dress, i)
        _write(axes, points, curves[:i] + curves[i + 1 :], dress, i)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=min(len(names), 2), frameon=False, labelcolor="linecolor",
                fontsize=11, handlelength=1.2, handletextpad=0.5, columnspacing=1.5, borderaxespad=0.2)  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=dress.paper, metadata={"Software": None})
    return buffer.getvalue()


def plain_axes(axes: Any, dress: Theme) -> None:
    """Horizontal lines to read heights by, a bottom line, and no frame."""
    axes.set_facecolor(dress.paper)
    axes.grid(True, axis="y", color=dress.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(dress.faint)
    axes.tick_params(colors=dress.ink, which="both", labelsize=10, length=0, pad=6)


def _dress(axes: Any, dress: Theme, metric: Metric, size: Metric, title: str, curves: int) -> None:
    plain_axes(axes, dress)
    axes.set_xscale("log")
    axes.set_xlabel(size.heading, color=dress.ink, fontsize=11, labelpad=6)
    ticker = require("matplotlib.ticker", "plots")
    axes.xaxis.set_major_locator(ticker.LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.margins(x=0.14, y=0.12)
    # The quantity stands above the plot, where it reads without turning the head; the names of the curves lie in between.
    axes.set_title(title or metric.heading, loc="left", color=dress.ink, fontsize=12, pad=28 if curves <= 2 else 46)


def _points(rows: Sequence[Row], metric: Metric, size: Metric) -> list[_Point]:
    """One per label, from small to large, in the units of the plot."""
    points = []
    for runs in group(rows).values():
        values = tuple(value * metric.scale for value in spread(runs, metric.key).values)
        points.append(_Point(spread(runs, size.key).mean * size.scale, values, str(runs[0].get("mark", ""))))
    return sorted(points, key=lambda point: point.x)


def _draw(axes: Any, points: Sequence[_Point], name: str, dress: Theme, index: int) -> None:
    colour = dress.series[index]
    for point in points:
        axes.scatter([point.x] * len(point.values), point.values, s=14, color=colour, alpha=0.45, linewidths=0, zorder=3)
        axes.plot([point.x] * 2, [min(point.values), max(point.values)], color=colour, alpha=0.45, linewidth=1.6, zorder=2)
    axes.plot([p.x for p in points], [p.y for p in points], color=colour, marker=_MARKERS[index], markersize=7, linewidth=2.2,
              markeredgecolor=dress.paper, markeredgewidth=1.2, zorder=4, label=name)  # fmt: skip


def _write(axes: Any, points: Sequence[_Point], others: Sequence[list[_Point]], dress: Theme, index: int) -> None:
    """Marks beside the points, on the side away from other curves.

    Above a point a mark stands to the left, below it to the right, where a rising curve is not; otherwise the other way.
    """
    halo = require("matplotlib.patheffects", "plots").withStroke(linewidth=3, foreground=dress.paper)
    for i, point in enumerate(points):
        up = (_gap(point, others) or (1.0 if index == 0 else -1.0)) > 0
        before, after = points[max(i - 1, 0)], points[min(i + 1, len(points) - 1)]
        left = before.y <= point.y if up else after.y < point.y
        axes.annotate(point.mark, (point.x, point.y), xytext=(-7 if left else 7, 5 if up else -5), textcoords="offset points",
                      ha="right" if left else "left", va="bottom" if up else "top", color=dress.series[index], fontsize=10,
                      path_effects=[halo], zorder=5)  # fmt: skip


def _gap(point: _Point, others: Sequence[list[_Point]]) -> float:
    """How far ``point`` lies above (below: negative) the nearest of the other curves; 0 for none."""
    heights = [np.interp(np.log(point.x), [np.log(p.x) for p in other], [p.y for p in other]) for other in others]
    return min((float(point.y - height) for height in heights), key=abs, default=0.0)
