"""Budgets as they are written, ``flops=0.5``, ``bytes="10MB"``, ``latency="3ms"``, as limits that a count can be held to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from secateurs.core.count import check_sparsity
from secateurs.errors import BadInput
from secateurs.measure.process import parse_bytes
from secateurs.recipe import Recipe

__all__ = ["BUDGETS", "Budget", "budget_of"]

#: Recipe fields that say how much is left, and what they count.
BUDGETS = {"flops": "multiply-adds", "params": "parameters", "bytes": "bytes", "latency": "seconds"}

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@dataclass(frozen=True)
class Budget:
    """How much: ``name`` is ``"ratio"`` or a key of :data:`BUDGETS`, ``value`` as the user wrote it."""

    name: str
    value: float | int | str

    def limit(self, dense: float) -> float:
        """The most that may be left of ``dense``: a float is a share, an integer a count, text has a unit.

        Raises:
            BadInput: not a lawful amount.
        """
        value = self.value
        if isinstance(value, str):
            return self._with_unit(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or not math.isfinite(value):
            raise self._wrong()
        if isinstance(value, int):
            if self.name == "latency":
                raise self._wrong()
            return value
        if value > 1:
            raise self._wrong()
        share = Fraction(str(value)) * Fraction(dense)
        return math.floor(share) if isinstance(dense, int) else float(share)

    def _with_unit(self, text: str) -> float:
        if self.name == "bytes":
            try:
                return parse_bytes(text)
            except BadInput:
                raise self._wrong() from None
        found = re.fullmatch(r"\s*([0-9.]+)\s*([a-zµ]+)\s*", text)
        if self.name != "latency" or not found or found[2] not in _SECONDS:
            raise self._wrong()
        try:
            seconds = float(found[1]) * _SECONDS[found[2]]
        except ValueError:
            raise self._wrong() from None
        if not seconds > 0:
            raise self._wrong()
        return seconds

    def _wrong(self) -> BadInput:
        units = {"bytes": ', or text with a unit ("10MB")', "latency": ""}.get(self.name, "")
        count = 'a time with its unit ("3ms")' if self.name == "latency" else f"a number of {BUDGETS[self.name]} (an integer)"
        return BadInput(f"{self.name}={self.value!r}: give the share left (a float above 0.0, up to 1.0) or {count}{units}")


def budget_of(recipe: Recipe) -> Budget:
    """The one amount that a structured recipe names.

    Raises:
        BadInput: none, or an amount that is for single weights.
    """
    said = [(name, getattr(recipe, name)) for name in ("ratio", *BUDGETS) if getattr(recipe, name) is not None]
    if not said:
        raise BadInput("how much? give ratio=0.3 (the share of channels, heads, ... removed), or what is left: flops=0.5, "
                       'params=0.5, bytes="10MB" or latency=0.7')  # fmt: skip
    name, value = said[0]
    if name == "ratio":
        check_sparsity(value, "ratio")
    return Budget(name, value)
