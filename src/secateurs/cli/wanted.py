"""How much is wanted of which calibration source."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Batches", "Wanted"]

Batches = list[dict[str, Tensor]]


@dataclass(frozen=True)
class Wanted:
    """How much of which source; ``length`` is in tokens and for text alone, ``column`` that of a file with several."""

    source: str
    samples: int
    length: int | None
    column: str | None
    seed: int
    trust_remote_code: bool = False
