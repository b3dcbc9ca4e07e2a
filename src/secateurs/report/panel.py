"""Bars or dots over groups as parts of an inline SVG: positions here, colours and dress in the page's own style."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Group", "Mark", "Panel"]

WIDTH, HEIGHT = 720.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 30.0, 34.0
_LABEL = 22.0  # pixels between two labels of groups, at least


@dataclass(frozen=True)
class Group:
    """Values that stand above one place of the axis, each with its name; ``under`` is written below the first of a series."""

    label: str
    values: tuple[tuple[str, float], ...]
    under: str = ""


@dataclass(frozen=True)
class Mark:
    """A bar (its upper left corner) or the middle of a dot, in pixels, and what it says when it is touched."""

    x: float
    y: float
    width: float
    height: float
    says: str


@dataclass(frozen=True)
class Panel:
    """A small plot. ``top`` is the highest value of its axis, which begins at 0; None fits it to the values."""

    title: str
    groups: tuple[Group, ...]
    kind: str = "bars"
    percent: bool = False
    top: float | None = None

    @property
    def marks(self) -> list[Mark]:
        """One per value."""
        wide = min(0.72 * self._step, 34.0)
        found = []
        for i, group in enumerate(self.groups):
            middle = self._middle(i)
            for name, value in group.values:
                y, says = self._height(value), f"{name}: {self._text(value, exact=True)}"
                x = middle - wide / 2 if self.kind == "bars" else middle
                found.append(Mark(round(x, 1), round(y, 1), round(wide, 1), round(self.base - y, 1), says))
        return found

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Heights of the horizontal lines, and what stands beside them."""
        count = round(self._most / self._spacing)
        return [(round(self._height(i * self._spacing), 1), self._text(i * self._spacing)) for i in range(count + 1)]

    @property
    def labels(self) -> Iterator[tuple[float, str, str]]:
        """Places on the axis with the group's label, of many every second, fifth, ..., and what stands below."""
        longest = max((len(group.label) for group in self.groups), default=1)
        every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 10**9) if n * self._step >= max(_LABEL, 7.0 * longest))
        begun = 0
        for i, group in enumerate(self.groups):
            begun = i if group.under else begun
            yield round(self._middle(i), 1), group.label if (i - begun) % every == 0 else "", group.under

    @property
    def box(self) -> tuple[float, float]:
        """Width and height of the picture."""
        return WIDTH, HEIGHT

    @property
    def sides(self) -> tuple[float, float]:
        """Where the horizontal lines begin and end."""
        return _LEFT, WIDTH - _RIGHT

    @property
    def base(self) -> float:
        """The height of 0."""
        return HEIGHT - _BOTTOM

    @property
    def _step(self) -> float:
        return (WIDTH - _LEFT - _RIGHT) / max(1, len(self.groups))

    @property
    def _highest(self) -> float:
        return max((value for group in self.groups for _, value in group.values), default=0.0)

    @property
    def _spacing(self) -> float:
        """Between two lines: 1, 2 or 5 of a power of ten, so that there are three to six."""
        wanted = (self.top or self._highest or 1.0) / 4
        unit = 10.0 ** math.floor(math.log10(wanted))
        return next(unit * n for n in (1, 2, 2.5, 5, 10) if unit * n >= wanted * (1 - 1e-9))

    @property
    def _most(self) -> float:
        return self._spacing * math.ceil((self.top or self._highest or 1.0) / self._spacing - 1e-9)

    def _middle(self, index: int) -> float:
        return _LEFT + (index + 0.5) * self._step

    def _height(self, value: float) -> float:
        return self.base - (self.base - _TOP) * value / self._most

    def _text(self, value: float, exact: bool = False) -> str:
        if self.percent:
            return f"{100 * value:.2f} %" if exact else f"{100 * value:g} %"
        return f"{value:.4g}" if exact else f"{value:.3g}"
