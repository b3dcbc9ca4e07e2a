"""Numbers in words, the same on a page and in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["bytes_text", "shape_text", "share"]


def bytes_text(count: float) -> str:
    """``"2.41 MB"`` (10^6 bytes), ``"18.3 kB"`` or ``"812 B"``."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} B"


def shape_text(shape: Sequence[int]) -> str:
    """``"64x3x3x3"``."""
    return "x".join(map(str, shape))


def share(part: float) -> str:
    """``"90.00 %"``."""
    return f"{100 * part:.2f} %"
