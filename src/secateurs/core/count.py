"""Exact counts: one rounding rule for the whole library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from secateurs.errors import BadInput

__all__ = ["check_sparsity", "largest_remainder", "paper_bytes", "removed_count"]


def check_sparsity(sparsity: float, what: str = "sparsity") -> float:
    """Return ``sparsity`` as a float in [0, 1), the share removed.

    Raises:
        BadInput: outside [0, 1), or not a number.
    """
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)) or not 0 <= sparsity < 1:
        raise BadInput(f"{what}={sparsity!r}: give the share of weights to remove, at least 0 and below 1 (0.9 removes 90 %)")
    return float(sparsity)


def removed_count(n: int, sparsity: float, least: int = 1) -> int:
    """How many of ``n`` ranked entries go at ``sparsity``: ``floor(s n + 1/2)``, leaving at least ``least``.

    The share is read as the decimal it prints as, so 0.29 of 50 is 14.5 and rounds to 15, whatever binary makes of 0.29.

    >>> removed_count(6, 0.5), removed_count(50, 0.29), removed_count(3, 0.99)
    (3, 15, 2)
    """
    k = math.floor(Fraction(str(float(sparsity))) * n + Fraction(1, 2))
    return max(0, min(k, n - min(least, n)))


def largest_remainder(
    shares: Sequence[float], total: int, capacity: Sequence[int], least: Sequence[int] | None = None
) -> list[int]:
    """Integers near ``shares`` that add up to ``total`` exactly; entry i stays within ``least[i]`` and ``capacity[i]``.

    Floors first, then one each to the largest fractional parts (ties to the earlier entry) until the total is met.

    Raises:
        BadInput: no such integers exist.
    """
    low = list(least) if least is not None else [0] * len(shares)
    if not sum(low) <= total <= sum(capacity):
        raise BadInput(f"a total of {total} cannot be met: the groups hold between {sum(low)} and {sum(capacity)}")
    counts = [min(max(math.floor(s), a), c) for s, a, c in zip(shares, low, capacity, strict=True)]
    missing = total - sum(counts)
    while missing:
        step = 1 if missing > 0 else -1
        room = [i for i, c in enumerate(counts) if (c < capacity[i] if step > 0 else c > low[i])]
        room.sort(key=lambda i: -step * (shares[i] - counts[i]))  # stable: ties keep their order
        for i in room[: abs(missing)]:
            counts[i] += step
        missing = total - sum(counts)
    return counts


def paper_bytes(n: int, nonzero: int) -> float:
    """Storage of ``nonzero`` of ``n`` weights as Zhu & Gupta (2017) count it, in bytes (their MB is 10^6 bytes).

    Four bytes a value plus the cheaper of two indices: one bit for each of the ``n`` dense entries, or four bits for each
    non-zero. The four-bit reading of their sparse row code is inferred from the sizes they print; the result is for the
    whole model at once, as in their table.

    >>> round(paper_bytes(4_210_000, 460_000) / 1e6, 2)
    2.07
    """
    return 4 * nonzero + min(n / 8, nonzero / 2)
