"""Time the solver and write ``benchmarks/results/solver.json``: ``python -m benchmarks.solver.run``.

The library's solver and the published loop take turns in one process, on the same thread count, so that whatever else the
machine does hits both alike. A ratio compares two turns that followed each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.circumstances import measured
from benchmarks.solver.published import inverse_factor, prune
from secateurs.core.obs import Blockwise, Fixed, Groups, solve
from secateurs.core.obs_factor import factorise
from secateurs.core.structures import NM

RESULTS = Path(__file__).parents[1] / "results" / "solver.json"
SHAPES = ("512x2048", "2048x8192")
Turns = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> int:
    """Measure every shape and rewrite its part of the results."""
    said = _parser().parse_args(arguments)
    torch.set_num_threads(said.threads)
    sizes = {shape: map(int, shape.split("x")) for shape in said.shapes}
    parts = {f"{shape} threads {said.threads}": partial(measure, *size, said.repeats) for shape, size in sizes.items()}
    measured(parts, said.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="outputs x inputs, as 512x2048")
    return parser


def problem(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random weight, and the Gram matrix of inputs with a few strong common directions and unequal scales."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(max(8, columns // 16), columns, generator=generator)
    scales = torch.logspace(-1, 0.5, columns)[torch.randperm(columns, generator=generator)]
    gram = (common * scales).T @ (common * scales)
    gram.diagonal().add_(scales.square() * columns / 64)
    return torch.randn(rows, columns, generator=generator) / columns**0.5, gram


def measure(rows: int, columns: int, repeats: int, sparsity: float = 0.5) -> dict[str, Any]:
    """Seconds of every step and, for the same mask, the relative difference of the two results."""
    weight, gram = problem(rows, columns)
    count = Blockwise.of(weight.shape, round(sparsity * weight.numel()))
    mask = solve(weight, factorise(gram), count).mask
    turns: dict[str, list[float]] = {}
    differences = [_turn(turns, weight, gram, count, mask, sparsity) for _ in range(repeats)]
    return {"rows": rows, "columns": columns, "sparsity": sparsity, "repeats": repeats, "relative_difference": max(differences),
            "seconds": {name: _spread(times) for name, times in turns.items()}, "ratios": _ratios(turns)}  # fmt: skip


def _turn(turns: Turns, weight: Tensor, gram: Tensor, count: Blockwise, mask: Tensor, sparsity: float) -> float:
    """Everything once; how far the two results for ``mask`` lie apart."""
    u = _timed(turns, "published factor", lambda: inverse_factor(gram))
    theirs = _timed(turns, "published, mask given", lambda: prune(weight, u, mask=mask))
    factor = _timed(turns, "factor", lambda: factorise(gram))
    ours = _timed(turns, "mask given", lambda: solve(weight, factor, Fixed(mask)))
    _timed(turns, "published, mask chosen", lambda: prune(weight, u, sparsity))
    _timed(turns, "mask chosen", lambda: solve(weight, factor, count))
    _timed(turns, "2:4", lambda: solve(weight, factor, Groups(NM(2, 4))))
    _timed(turns, "int4, mask given", lambda: solve(weight, factor, Fixed(mask), bits=4))
    return float((ours.weight - theirs).norm() / theirs.norm())


def _timed(turns: Turns, name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    turns.setdefault(name, []).append(time.perf_counter() - began)
    return result


def _ratios(turns: Turns) -> dict[str, dict[str, float]]:
    """Published over ours, turn by turn: the factor alone, the columns alone, and both together."""

    def ratio(theirs: list[str], ours: list[str]) -> dict[str, float]:
        sums = [[sum(t) for t in zip(*(turns[n] for n in names), strict=True)] for names in (theirs, ours)]
        return _spread([a / b for a, b in zip(*sums, strict=True)])

    given, chosen = "mask given", "mask chosen"
    return {"factor": ratio(["published factor"], ["factor"]),
            f"columns, {given}": ratio([f"published, {given}"], [given]),
            f"columns, {chosen}": ratio([f"published, {chosen}"], [chosen]),
            f"whole, {given}": ratio(["published factor", f"published, {given}"], ["factor", given]),
            f"whole, {chosen}": ratio(["published factor", f"published, {chosen}"], ["factor", chosen])}  # fmt: skip


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


if __name__ == "__main__":
    raise SystemExit(main())
