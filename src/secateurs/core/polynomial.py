"""Costs as exact functions of how many indices every group keeps: sums of products of kept counts.

The length of a tensor's dimension is such a sum (``64``, ``kept[a]``, ``12 kept[heads] kept[head dims]``, or what was
concatenated, added up), the entries of a tensor are the product of its lengths, and so are the multiply-adds of a layer. What
removing an index of one group saves depends on what the others keep; here it is counted, not estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Polynomial", "product", "total"]

Monomial = tuple[str, ...]  # group names in order, one as often as its count is multiplied in


@dataclass(frozen=True)
class Polynomial:
    """``sum of coefficient * kept[g] * kept[h] * ...``, with integers throughout.

    >>> length = Polynomial.constant(3) + Polynomial.of("a", 2)
    >>> length({"a": 5}), (length * length)({"a": 5})
    (13, 169)
    """

    terms: Mapping[Monomial, int]

    @classmethod
    def constant(cls, value: int) -> Polynomial:
        """The same whatever is kept."""
        return cls({(): value} if value else {})

    @classmethod
    def of(cls, group: str, factor: int = 1) -> Polynomial:
        """``factor * kept[group]``."""
        return cls({(group,): factor})

    @property
    def groups(self) -> set[str]:
        """The groups it depends on."""
        return {group for monomial in self.terms for group in monomial}

    def __add__(self, other: Polynomial) -> Polynomial:
        return total((self, other))

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                monomial = tuple(sorted(left + right))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Polynomial(terms)

    def __call__(self, kept: Mapping[str, int]) -> int:
        value = 0
        for monomial, coefficient in self.terms.items():
            for group in monomial:
                coefficient *= kept[group]
            value += coefficient
        return value

    def saving(self, group: str, kept: Mapping[str, int]) -> int:
        """What one index less of ``group`` saves, the others as they are."""
        return self(kept) - self({**kept, group: kept[group] - 1})


def total(parts: Iterable[Polynomial]) -> Polynomial:
    """Their sum."""
    terms: dict[Monomial, int] = {}
    for part in parts:
        for monomial, coefficient in part.terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
    return Polynomial(terms)


def product(parts: Iterable[Polynomial]) -> Polynomial:
    """Their product; of nothing, one."""
    result = Polynomial.constant(1)
    for part in parts:
        result = result * part
    return result
