"""How each arm is drawn: a colour, a marker and a dash of its own, so that a greyscale print or a colour-blind eye tells them
apart. The three baselines are muted and look the same in every comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

from secateurs.comparing.reporting.points import TaskResults

__all__ = ["Style", "styles"]

# Okabe and Ito's palette, safe for colour-blind readers, and some more; for light paper, and lighter ones for dark.
_COLOURS = (("#0072b2", "#56b4e9"), ("#d55e00", "#ff9d5c"), ("#009e73", "#2ec4a0"), ("#b5508f", "#e39ac4"),
            ("#b07d00", "#f0c04a"), ("#5b4fc7", "#a79ef5"), ("#8a3b12", "#d99a6c"), ("#4d7a00", "#a8cf5a"),
            ("#007a87", "#5fd0da"), ("#a3153f", "#ff8fa8"), ("#6b6b2f", "#c9c98a"))  # fmt: skip
_MARKERS = (("circle", "o"), ("square", "s"), ("diamond", "D"), ("triangle-up", "^"), ("triangle-down", "v"),
            ("pentagon", "p"), ("star", "*"), ("hexagon", "h"))  # fmt: skip
_DASHES = (("solid", "-"), ("dash", (0, (5, 2))), ("dot", (0, (1.2, 1.5))), ("dashdot", (0, (5, 1.5, 1.2, 1.5))),
           ("longdash", (0, (9, 2))))  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How an arm looks. ``marker`` and ``dash`` are named as plotly does, ``mark`` and ``dashes`` are matplotlib's."""

    light: str
    dark: str
    marker: str
    mark: str
    dash: str
    dashes: object
    width: float = 2.0


_BASELINES = {
    "dense": Style("#1f2328", "#e6e8ea", "line-ew", "", "solid", "-", 1.6),
    "small-dense": Style("#59626c", "#a0a8b0", "square-open", "s", "dash", (0, (4, 2)), 1.5),
    "random": Style("#7d858e", "#858d96", "x-thin-open", "x", "dot", (0, (1.2, 1.8)), 1.5),
}


def styles(tasks: Iterable[TaskResults]) -> dict[str, Style]:
    """A style for every arm, the same on all tasks. With more arms than colours a colour comes back with another marker."""
    roles = {entry.arm: entry.role for task in tasks for entry in task.entries}
    free = zip(cycle(_COLOURS), cycle(_MARKERS), cycle(_DASHES), strict=False)
    found: dict[str, Style] = {}
    for arm in sorted(roles, key=lambda arm: (list(_BASELINES).index(roles[arm]) if roles[arm] in _BASELINES else 3, arm)):
        if roles[arm] in _BASELINES and _BASELINES[roles[arm]] not in found.values():
            found[arm] = _BASELINES[roles[arm]]
        else:
            (light, dark), (marker, mark), (dash, dashes) = next(free)
            found[arm] = Style(light, dark, marker, mark, dash, dashes)
    return found
