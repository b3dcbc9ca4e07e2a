"""How reports put names and numbers into sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from secateurs.comparing.reporting.points import Pair
from secateurs.report.rows import Metric, Spread

__all__ = ["count", "difference", "differing", "listed", "on_seeds", "quoted", "unit"]

_BY_VERDICT = {"ahead": "ahead", "behind": "behind", "level": "level"}


def listed(words: Iterable[Any], most: int = 8) -> str:
    """``"a, b and c"``; after ``most`` words ``"and 4 more"``."""
    said = [str(word) for word in words]
    if len(said) > most:
        said = [*said[:most], f"{len(said) - most} more"]
    return said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1] if said else "none"


def quoted(words: Iterable[Any], most: int = 8) -> str:
    """As :func:`listed`, every word in quotes."""
    words = list(words)
    more = [f"{len(words) - most} more"] if len(words) > most else []
    return listed([f"'{word}'" for word in words[:most]] + more, most + 1)


def count(number: int, noun: str, plural: str = "") -> str:
    """``"1 seed"``, ``"3,000 seeds"``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def unit(metric: Metric) -> str:
    """What a difference is counted in: ``"points"`` of a percentage, otherwise nothing is added."""
    return " points" if metric.unit == "%" else ""


def difference(metric: Metric, values: Spread) -> str:
    """``"+1.20 ± 0.20 points"``."""
    return metric.show_difference(values) + unit(metric)


def on_seeds(found: Pair) -> str:
    """What the seeds say: ``"ahead on every one of 5 seeds"``, ``"the seeds disagree: ahead on 3 of 5"``."""
    n = len(found.seeds)
    if n == 1:
        return f"{_BY_VERDICT[found.verdict]} on the one seed there is"
    if found.verdict in _BY_VERDICT:
        return f"{_BY_VERDICT[found.verdict]} on every one of {n} seeds"
    return f"the seeds disagree: ahead on {found.wins} of {n}"


def differing(groups: Sequence[tuple[str, Sequence[str]]]) -> str:
    """``"4,000 steps for 'a' and 'b'; 1,000 steps for 'c'"``."""
    return "; ".join(f"{what} for {quoted(who)}" for what, who in groups)
