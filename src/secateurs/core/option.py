"""Settings of a method: one of a few words, or a number between bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Number", "check_option", "default_of"]


@dataclass(frozen=True)
class Number:
    """A free number from ``least`` to ``most``, both lawful if finite; a ``whole`` one has no fraction."""

    default: float
    least: float = 0.0
    most: float = math.inf
    whole: bool = False

    def allows(self, value: Any) -> bool:
        """Whether ``value`` is such a number."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return self.least <= value <= self.most and math.isfinite(value)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind}, {self.least:g} or more" if math.isinf(self.most) else f"{kind} from {self.least:g} to {self.most:g}"


#: The lawful values, the first being the default, or a number.
Option = Sequence[Any] | Number


def default_of(option: Option) -> Any:
    """What holds where the user says nothing."""
    return option.default if isinstance(option, Number) else option[0]


def check_option(option: Option, value: Any) -> str:
    """What would be lawful, where ``value`` is not; an empty string where it is."""
    if isinstance(option, Number):
        return "" if option.allows(value) else f"give {option}"
    lawful = any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in option)
    return "" if lawful else f"use one of {', '.join(map(repr, option))}"
