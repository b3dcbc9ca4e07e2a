"""The rows of the language benchmark, looked up by what they are of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.language.grid import DENSE, MAGNITUDE, MIXED, UNIFORM
from secateurs.comparing.store import read_rows
from secateurs.errors import BadInput

__all__ = ["Row", "Rows", "mean"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The dense model's row, and those of the pruned ones."""

    dense: Row
    pruned: list[Row]

    @classmethod
    def read(cls, path: Path) -> Rows:
        """Those of ``path`` that are done.

        Raises:
            BadInput: the dense model is not among them, or they were not judged on the same windows.
        """
        rows = [row for row in read_rows(path)[0] if row["status"] == "done"]
        dense = next((row for row in rows if row["method"] == DENSE), None)
        if dense is None:
            raise BadInput(f"{str(path)!r} has no row of the dense model: run python -m benchmarks.language.run --only dense")
        if other := [row["run"] for row in rows if row["windows"] != dense["windows"]]:
            raise BadInput(f"{str(path)!r}: {other[0]} was not judged on the windows of the dense model")
        return cls(dense, [row for row in rows if row is not dense])

    def at(self, method: str, point: str, text: str = MIXED, seed: int = 0, allocation: str = UNIFORM) -> Row:
        """The row of a pruned model, empty if there is none; magnitude has one for all texts and seeds."""
        said = (method, point, None, 0) if method == MAGNITUDE else (method, point, text, seed)
        return next((r for r in self.pruned if (r["method"], r["point"], r["calibration"], r["seed"]) == said
                     and r.get("allocation", UNIFORM) == allocation), {})  # fmt: skip

    def loss(self, row: Row, domain: str) -> float:
        """Perplexity on ``domain`` as a multiple of the dense model's."""
        return float(row["perplexity"][domain] / self.dense["perplexity"][domain])


def mean(values: Iterable[float]) -> float:
    """The geometric one."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
