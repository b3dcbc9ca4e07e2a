"""What a block costs when it alone is pruned, beside what allocations take from it: ``python -m benchmarks.language.blocks``.

Needs ``SECATEURS_DATA`` with ``models/llama-4domains``; writes ``benchmarks/results/language/blocks.json``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import secateurs as sc
from benchmarks.circumstances import measured
from benchmarks.language import text
from benchmarks.language.grid import DOMAINS, MIXED
from benchmarks.language.one import BLOCKS
from secateurs.measure import perplexity

__all__ = ["RESULTS", "main"]

RESULTS = Path(__file__).parents[1] / "results" / "language" / "blocks.json"
METHOD, SPARSITY = "wanda", 0.6
ALLOCATIONS = ("owl", "global")


def main(arguments: list[str] | None = None) -> int:
    """Measure, and rewrite the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--windows", type=int, default=16, help="of every domain")
    said = parser.parse_args(arguments)
    measured({"blocks": lambda: _blocks(said.windows)}, said.out)
    return 0


def _blocks(windows: int) -> dict[str, Any]:
    model = text.dense()
    count = model.config.num_hidden_layers
    dense = _mean(model, windows)
    alone = [_mean(_pruned(only_blocks=f"{i}:{i + 1}").model, windows) / dense for i in range(count)]
    shares = {allocation: _shares(_pruned(allocation=allocation).plan, count) for allocation in ALLOCATIONS}
    return {"method": METHOD, "sparsity": SPARSITY, "windows": windows, "dense": dense, "alone": alone, "shares": shares}


def _pruned(**how: Any) -> Any:
    return sc.prune(text.dense(), METHOD, sparsity=SPARSITY, calibration=text.calibration(MIXED, 0), include=(BLOCKS,), **how)


def _shares(plan: sc.Plan, count: int) -> list[float]:
    """The share of every block's weights that goes."""
    removed, sizes = [0] * count, [0] * count
    for entry in plan.entries:
        block = int(entry.name.split(".")[2])
        removed[block] += entry.removed
        sizes[block] += entry.size
    return [gone / size for gone, size in zip(removed, sizes, strict=True)]


def _mean(model: Any, windows: int) -> float:
    """The geometric mean of the domains' perplexities."""
    values = [perplexity(model, text.validation(domain, windows)) for domain in DOMAINS]
    return math.exp(sum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    raise SystemExit(main())
