"""What a table and a curve are made of: result rows grouped by label, means with their spread, paired differences.

A row is one run: ``{"label": "sparse 90 %", "method": "gmp", "point": "90 %", "seed": 0, "accuracy": 0.98, "bytes": 14864}``.
``label`` names a configuration, ``seed`` tells its repetitions apart, ``point`` joins the rivals of one operating point.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateurs.errors import BadInput, near
from secateurs.extras import require

__all__ = ["Metric", "Row", "Spread", "group", "paired", "spread", "verdict"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """The values of one quantity over repetitions, in the order of the rows."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Sample standard deviation (n - 1); 0.0 for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def error(self) -> float | None:
        """Standard error of the mean, ``deviation / sqrt(n)``; None for a single value, which says nothing of its error."""
        return self.deviation / math.sqrt(len(self.values)) if len(self.values) > 1 else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Student's t interval of the mean; None for fewer than three values, of which it would say next to nothing.

        Raises:
            MissingExtra: scipy is not installed.
        """
        n = len(self.values)
        if n < 3:
            return None
        t = float(require("scipy.special", "compare").stdtrit(n - 1, (1 + confidence) / 2))
        half = t * self.deviation / math.sqrt(n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Metric:
    """How a key of the rows is read and written."""

    key: str
    title: str
    unit: str = ""
    scale: float = 1.0
    """What a stored value is multiplied by before it is shown: 100 for a share shown in per cent."""
    digits: int = 1
    repeated: bool = True
    """Whether repetitions differ by chance; if so the sample standard deviation is shown behind the mean."""
    higher_is_better: bool = True
    standard_error: bool = False
    """Whether the standard error of the mean is shown in place of the deviation."""

    @property
    def heading(self) -> str:
        """Title and unit: ``"accuracy, %"``."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def show(self, values: Spread) -> str:
        """``"98.6 ± 0.3"``; without the deviation for a single value or a quantity that does not vary by chance."""
        return self._number(values.mean) + self._deviation(values)

    def show_difference(self, values: Spread) -> str:
        """As :meth:`show`, with the sign always written."""
        return self._number(values.mean, "+") + self._deviation(values)

    def _number(self, value: float, sign: str = "") -> str:
        scaled = round(value * self.scale, self.digits) + 0.0  # no minus zero in print
        return f"{scaled:{sign},.{self.digits}f}"

    def _deviation(self, values: Spread) -> str:
        shown = values.error if self.standard_error else values.deviation
        return f" ± {self._number(shown or 0.0)}" if self.repeated and len(values.values) > 1 else ""


def group(rows: Iterable[Row], key: str = "label") -> dict[Any, list[Row]]:
    """Rows by the value of ``key``, in the order in which values first appear."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(_read(row, key), []).append(row)
    return groups


def spread(rows: Sequence[Row], key: str) -> Spread:
    """The values of ``key`` over ``rows``.

    Raises:
        BadInput: no rows, a row without the key, or a value that is not a finite number.
    """
    if not rows:
        raise BadInput(f"no rows to read {key!r} from")
    values = tuple(float(_read(row, key)) for row in rows)
    if not all(map(math.isfinite, values)):
        raise BadInput(f"{key!r} is not finite in the rows of {rows[0].get('label')!r}: {values}")
    return Spread(values)


def paired(rows: Sequence[Row], against: Sequence[Row], key: str, on: str = "seed") -> Spread:
    """``rows`` minus ``against`` in ``key``, pair by pair: the two rows of one ``on`` share what that seed fixed.

    Raises:
        BadInput: the two sides do not have the same, unrepeated values of ``on``.
    """
    ours, theirs = ({_read(row, on): row for row in side} for side in (rows, against))
    if not ours or ours.keys() != theirs.keys() or len(ours) != len(rows) or len(theirs) != len(against):
        raise BadInput(f"cannot pair rows on {on!r}: one side has {[row.get(on) for row in rows]}, "
                       f"the other {[row.get(on) for row in against]}")  # fmt: skip
    return Spread(tuple(float(_read(ours[seed], key)) - float(_read(theirs[seed], key)) for seed in ours))


def verdict(differences: Spread, metric: Metric) -> str:
    """``"ahead"`` or ``"behind"`` if every difference has that sign, else ``"mixed"``; ``"level"`` if all are zero.

    Few repetitions carry no significance test, so none is claimed: the word says what was seen in every one of them.
    """
    signs = {(d > 0) - (d < 0) for d in differences.values}
    if not metric.higher_is_better:
        signs = {-sign for sign in signs}
    return {1: "ahead", -1: "behind", 0: "level"}[signs.pop()] if len(signs) == 1 else "mixed"


def _read(row: Row, key: str) -> Any:
    if key not in row:
        raise BadInput(f"a row has no {key!r}" + (near(key, map(str, row)) or f"; its keys are {', '.join(map(str, row))}"))
    return row[key]
