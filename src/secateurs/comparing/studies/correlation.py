"""How the loss before retraining goes with what comes after it: three correlations with intervals, the oracle's anomalies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateurs.errors import BadInput
from secateurs.extras import require

__all__ = ["RESAMPLES", "Anomaly", "Correlation", "anomaly", "correlations"]

RESAMPLES = 2000
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Correlation:
    """One coefficient in [-1, 1]. What cannot be computed (a constant side, fewer than three sets) is None."""

    name: str
    value: float | None
    p: float | None
    """Of the hypothesis that the two sides have nothing to do with each other, two-sided."""
    low: float | None
    high: float | None
    """A 95 % interval: percentiles over resampled sets."""


@dataclass(frozen=True)
class Anomaly:
    """How often the oracle, the set with the lowest loss before retraining, was beaten after it."""

    oracle: int
    """Its place among the sets; the first of equals."""
    better: int
    """Sets whose result is strictly better than the oracle's."""
    sets: int

    @property
    def ratio(self) -> float:
        """Share of all sets, the oracle among them (it never beats itself)."""
        return self.better / self.sets


def anomaly(loss: Sequence[float], result: Sequence[float], higher_is_better: bool = True) -> Anomaly:
    """The anomaly count of "Is Oracle Pruning the True Oracle?" (2024). 0 says the oracle wins, half that it is a random pick.

    >>> anomaly([0.3, 0.1, 0.2], [0.90, 0.94, 0.95])
    Anomaly(oracle=1, better=1, sets=3)

    Raises:
        BadInput: no sets, lists of different lengths, or a number that is not finite.
    """
    before, after = _sides(loss, result)
    oracle = int(before.argmin())
    ahead = after > after[oracle] if higher_is_better else after < after[oracle]
    return Anomaly(oracle, int(ahead.sum()), len(before))


def correlations(x: Sequence[float], y: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> tuple[Correlation, ...]:
    """Kendall's tau-b, Spearman's rho and Pearson's r of two lists, in this order, by SciPy.

    The intervals are of the percentile bootstrap: ``resamples`` times as many pairs are drawn with replacement, seeded; draws
    in which a side is constant have no coefficient and are left out.

    Raises:
        BadInput: no pairs, lists of different lengths, or a number that is not finite.
        MissingExtra: SciPy is not installed.
    """
    left, right = _sides(x, y)
    stats = require("scipy.stats", "compare")
    n = len(left)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    return tuple(_correlation(name, getattr(stats, scipy_name), weighted, left, right, draws)
                 for name, scipy_name, weighted in (("Kendall tau-b", "kendalltau", _kendall),
                                                    ("Spearman rho", "spearmanr", _spearman),
                                                    ("Pearson r", "pearsonr", _pearson)))  # fmt: skip


def _correlation(
    name: str, found: Callable[..., Any], weighted: Callable[[Array, Array, Array], Array], x: Array, y: Array, draws: Array
) -> Correlation:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(name, None, None, None, None)
    said = found(x, y)
    low, high = np.percentile(weighted(x, y, draws[_varied(x, draws) & _varied(y, draws)]), [2.5, 97.5])
    return Correlation(name, float(said.statistic), float(said.pvalue), float(low), float(high))


def _varied(x: Array, draws: Array) -> Any:
    """In which draws the side has more than one value."""
    return np.where(draws > 0, x, -np.inf).max(1) > np.where(draws > 0, x, np.inf).min(1)


# Resampling pairs is counting how often each was drawn, and a coefficient of pairs with counts is a product of matrices: 2000
# resamples of 250 sets take a fraction of a second, where sorting each of them anew would take a minute.


def _kendall(x: Array, y: Array, counts: Array) -> Array:
    """tau-b of every row of ``counts``: concordant less discordant pairs over the geometric mean of the untied ones."""
    dx, dy = np.sign(x[:, None] - x), np.sign(y[:, None] - y)

    def pairs(of: Array) -> Array:
        return ((counts @ of) * counts).sum(1)

    return _ratio(pairs(dx * dy), pairs(dx * dx), pairs(dy * dy))


def _spearman(x: Array, y: Array, counts: Array) -> Array:
    return _moments(_ranks(x, counts), _ranks(y, counts), counts)


def _pearson(x: Array, y: Array, counts: Array) -> Array:
    return _moments(np.broadcast_to(x, counts.shape), np.broadcast_to(y, counts.shape), counts)


def _ranks(x: Array, counts: Array) -> Array:
    """The mean rank that each value has in each resample."""
    below, equal = (x < x[:, None]).astype(np.float64), (x == x[:, None]).astype(np.float64)
    return counts @ below.T + (counts @ equal.T + 1) / 2


def _moments(x: Array, y: Array, counts: Array) -> Array:
    n = counts.sum(1, keepdims=True)
    dx, dy = (side - (side * counts).sum(1, keepdims=True) / n for side in (x, y))
    return _ratio(*((counts * product).sum(1) for product in (dx * dy, dx * dx, dy * dy)))


def _ratio(both: Array, left: Array, right: Array) -> Array:
    return both / np.sqrt(left * right)


def _sides(x: Sequence[float], y: Sequence[float]) -> tuple[Array, Array]:
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or not len(left):
        raise BadInput(f"cannot compare {len(x)} numbers with {len(y)}: give two lists of as many, at least one")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise BadInput("a loss or a result is NaN or infinite: the study cannot rank it")
    return left, right
