"""The picture of an oracle study: every set by its loss before retraining and its metric after."""

from __future__ import annotations

import io
from typing import Any

from secateurs.comparing.studies.outcome import OracleOutcome
from secateurs.errors import BadInput, near
from secateurs.extras import require
from secateurs.report.plots import THEMES, Theme, plain_axes

__all__ = ["scatter_png"]

WIDE = 20.0  # ratio of the largest to the smallest loss from which on the axis is logarithmic


def scatter_png(outcome: OracleOutcome, theme: str = "light") -> bytes:
    """A PNG: a dot per set with a bar over its repeats, the oracle as a star, the dense model as a line.

    Args:
        theme: ``"light"`` or ``"dark"``.

    Raises:
        BadInput: an unknown theme.
    """
    if theme not in THEMES:
        raise BadInput(f"theme={theme!r} is unknown; use one of {', '.join(THEMES)}" + near(theme, THEMES))
    dress = THEMES[theme]
    new = require("matplotlib.figure", "plots").Figure
    figure = new(figsize=(5.2, 4.0), dpi=220, facecolor=dress.paper, layout="constrained")
    axes = figure.add_subplot()
    _dress(axes, dress, outcome)
    _draw(axes, dress, outcome)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3, frameon=False, labelcolor=dress.ink, fontsize=10,
                handlelength=1.4, handletextpad=0.5, columnspacing=1.5, borderaxespad=0.2)  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=dress.paper, metadata={"Software": None})
    return buffer.getvalue()


def _dress(axes: Any, dress: Theme, outcome: OracleOutcome) -> None:
    plain_axes(axes, dress)
    losses = [s.loss_before for s in outcome.sets]
    if min(losses) > 0 and max(losses) > WIDE * min(losses):
        axes.set_xscale("log")
    axes.set_xlabel("training loss after pruning, before retraining", color=dress.ink, fontsize=11, labelpad=6)
    axes.set_title(f"{outcome.metric.heading}, after retraining", loc="left", color=dress.ink, fontsize=12, pad=28)


def _draw(axes: Any, dress: Theme, outcome: OracleOutcome) -> None:
    scale, best = outcome.metric.scale, outcome.anomaly.oracle
    for i, s in enumerate(outcome.sets):
        colour = dress.series[0 if i == best else 1]
        axes.plot([s.loss_before] * 2, [scale * min(s.values), scale * max(s.values)], color=colour, alpha=0.45, linewidth=1.4)
    others = [s for i, s in enumerate(outcome.sets) if i != best]
    axes.plot([s.loss_before for s in others], [scale * s.value for s in others], "o", color=dress.series[1], markersize=5,
              markeredgecolor=dress.paper, markeredgewidth=0.6, zorder=3, label="sets of filters")  # fmt: skip
    oracle = outcome.sets[best]
    axes.plot([oracle.loss_before], [scale * oracle.value], "*", color=dress.series[0], markersize=14,
              markeredgecolor=dress.paper, zorder=4, label="oracle")  # fmt: skip
    axes.axhline(scale * outcome.first["start"], color=dress.ink, linewidth=1.2, linestyle=(0, (5, 3)), label="dense model")
