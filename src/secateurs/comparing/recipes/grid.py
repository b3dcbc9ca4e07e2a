"""From a comparison to its runs: every arm on every task at every point with every seed, and what each one waits for.

The baselines are always there: the dense model trained on, random pruning, and the dense model of the same size where the
task says how wide it may be. An arm whose structure fixes its share (2:4 removes half) runs once, at the point of that share,
and the baselines join it there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from secateurs.comparing.recipes.checks import check, finds_amount, fixed_share
from secateurs.comparing.spec import MASKED, Arm, Comparison, Point, Run, Task
from secateurs.errors import BadInput

__all__ = ["runs", "steps", "with_baselines"]

FROM_START = ("dense", "prune", "iterative")
DENSE = Arm("dense", "dense")
RANDOM = Arm("random", settings={"method": "random", "allocation": "uniform"})
SMALL_DENSE = Arm("small-dense", "small-dense")


def runs(comparison: Comparison) -> list[Run]:
    """All runs, each after those it needs; of the free ones those first on which the longest training waits.

    Raises:
        BadInput: the comparison cannot be carried out as it is (see :func:`secateurs.comparing.recipes.checks.check`).
    """
    check(comparison)
    found = [run for task in comparison.tasks for run in _of_task(comparison, task)]
    double, times = Counter(run.name for run in found).most_common(1)[0]
    if times > 1:
        raise BadInput(f"two runs are called {double!r}; give tasks, methods and seeds names of their own")
    return _in_order(found)


def with_baselines(comparison: Comparison, task: Task) -> tuple[Arm, ...]:
    """The comparison's arms and the baselines of ``task`` that are not among them.

    Raises:
        BadInput: another arm has the name of a missing baseline.
    """
    arms = comparison.arms
    has = {arm.protocol for arm in arms} | {"random" for arm in arms if _is_random(arm)}
    wanted = (("dense", DENSE), ("random", RANDOM), *((("small-dense", SMALL_DENSE),) if task.widths else ()))
    missing = tuple(arm for what, arm in wanted if what not in has)
    for arm in missing:
        if arm.name in {other.name for other in arms}:
            raise BadInput(f"methods: {arm.name!r} is the name of a baseline that is always there; give yours another name")
    return (*arms, *missing)


def steps(run: Run) -> int:
    """The most optimizer steps a run takes; ``scratch-b`` and ``tickets`` may take fewer."""
    task = run.task
    if run.arm.protocol == "start":
        return task.dense.steps if task.dense and task.dense.checkpoint is None else 0
    if run.arm.retrain is not None and run.arm.retrain.steps is not None:
        return run.arm.retrain.steps
    if run.arm.protocol in FROM_START:
        return task.steps
    if run.arm.protocol == "tickets":
        return (run.arm.rounds + 1) * task.budget
    return math.floor(run.arm.cap * task.budget) if run.arm.protocol == "scratch-b" else task.budget


def _is_random(arm: Arm) -> bool:
    return arm.protocol == "prune" and arm.settings.get("method") == "random" and fixed_share(arm) is None


def _of_task(comparison: Comparison, task: Task) -> Iterator[Run]:
    """The runs of one task, those that others need before them."""
    arms, seeds = with_baselines(comparison, task), task.seeds or comparison.seeds

    def run(arm: Arm, point: Point | None, seed: int, *needs: str) -> Run:
        return Run(comparison.name, task, arm, point, seed, needs, comparison.threads)

    start = {seed: run(Arm("start", "start"), None, _start_seed(task, seed, seeds)) for seed in seeds} if task.dense else {}
    yield from {made.name: made for made in start.values()}.values()
    points, masks = _points(comparison, task, arms), {}
    for arm in (arm for arm in arms if arm.protocol not in MASKED):
        for point in points[arm.name]:
            for seed in seeds:
                begins = (start[seed].name,) if start and arm.protocol in FROM_START else ()
                made = run(arm, point, seed, *begins)
                masks[arm.name, point, seed] = made.name
                yield made
    for arm in (arm for arm in arms if arm.protocol in MASKED):
        for point in points[str(arm.of)]:
            yield from (run(arm, point, seed, masks[str(arm.of), point, seed]) for seed in seeds)


def _start_seed(task: Task, seed: int, seeds: tuple[int, ...]) -> int:
    """A stored model is the same for all seeds; it is loaded once, in the name of the first."""
    return seeds[0] if task.dense and task.dense.checkpoint is not None else seed


def _points(comparison: Comparison, task: Task, arms: tuple[Arm, ...]) -> dict[str, tuple[Point | None, ...]]:
    """Where every arm that is not another's mask runs."""
    common = comparison.points if task.sparsities is None else tuple(Point(share) for share in task.sparsities)
    fixed = {arm.name: Point(share) for arm in arms if (share := fixed_share(arm)) is not None}
    everywhere = tuple({point.label: point for point in (*common, *fixed.values())}.values())

    def of(arm: Arm) -> tuple[Point | None, ...]:
        if arm.protocol == "dense":
            return (None,)
        if arm.name in fixed:
            return (fixed[arm.name],)
        if finds_amount(arm):
            return (Point(),)
        return everywhere if arm.protocol == "small-dense" or _is_random(arm) else common

    return {arm.name: of(arm) for arm in arms if arm.protocol not in MASKED}


def _in_order(found: list[Run]) -> list[Run]:
    """The longest way to the end of everything first; a run is never behind one that needs it."""
    names = [run.name for run in found]
    by_name = dict(zip(names, found, strict=True))
    way = dict(zip(names, map(steps, found), strict=True))
    depth = dict.fromkeys(names, 0)
    for name in names:  # what a run needs comes before it in what was found
        depth[name] = max((depth[need] + 1 for need in by_name[name].needs), default=0)
    for name in reversed(names):
        for need in by_name[name].needs:
            way[need] = max(way[need], steps(by_name[need]) + way[name])
    return [by_name[name] for name in sorted(names, key=lambda name: (-way[name], depth[name]))]
