"""What cannot work in a comparison is said before anything is run: names, ranges, and choices that do not go together."""

from __future__ import annotations

import re
from collections.abc import Sequence

from secateurs.comparing.gradual import while_training
from secateurs.comparing.recipes.retraining import check_retrain
from secateurs.comparing.recipes.task_checks import SELECTION, check_task
from secateurs.comparing.recipes.values import check_seeds, no_doubles, number, one_of, placed, whole
from secateurs.comparing.spec import MASKED, PROTOCOLS, PRUNING, Arm, Comparison, Task
from secateurs.core.count import check_sparsity
from secateurs.core.method import Method
from secateurs.core.structures import parse_structure
from secateurs.errors import BadInput, near
from secateurs.recipe import Recipe

__all__ = ["check", "finds_amount", "fixed_share"]

FIXED = {
    **dict.fromkeys(("sparsity", "keep", "total_sparsity"), "the comparison's sparsities or compressions say it, for all"),
    **dict.fromkeys(SELECTION, "say it in the task's selection, for all methods alike"),
    "total_steps": "the task's steps say it",
    "seed": "the comparison's seeds say it",
}
WHILE_TRAINING = ("schedule", "begin", "end", "every", "initial_sparsity", "enforcement")


def check(comparison: Comparison) -> None:
    """Raise :class:`BadInput` if ``comparison`` cannot be carried out as it is; the functions it names are not looked at."""
    name = comparison.name
    if not isinstance(name, str) or not name or name.strip(".") == "" or re.search(r'[/\\:*?"<>|\x00-\x1f]', name):
        raise BadInput(f"name={name!r}: give a name that can be that of a folder")
    for what, names in (("tasks", [t.name for t in comparison.tasks]), ("methods", [a.name for a in comparison.arms])):
        if not names:
            raise BadInput(f"{what}: name at least one")
        no_doubles(what, names, "give each a name of its own (name:)")
    check_seeds(comparison.seeds)
    whole("threads", comparison.threads, 1)
    for arm in comparison.arms:
        with placed(f"methods: {arm.name!r}"):
            _check_arm(arm, comparison.arms)
    _check_points(comparison)
    for task in comparison.tasks:
        with placed(f"task {task.name!r}"):
            check_task(task)
            for arm in comparison.arms:
                with placed(f"methods: {arm.name!r}"):
                    _check_together(comparison, task, arm)


def fixed_share(arm: Arm) -> float | None:
    """The share an arm's structure removes whatever is asked (0.5 for ``2:4``), or None."""
    return parse_structure(arm.settings.get("structure") or "element").share if arm.protocol in PRUNING else None


def finds_amount(arm: Arm) -> bool:
    """Whether the arm's method finds how much goes, so that no operating point says it."""
    from secateurs.core.in_rounds import InRounds
    from secateurs.registry import find_method

    if arm.protocol != "tickets":
        return False
    method = find_method(arm.settings.get("method", "lottery"))
    return issubclass(method, InRounds) and method.finds_amount


def _check_arm(arm: Arm, arms: Sequence[Arm]) -> None:
    if not isinstance(arm.name, str) or not arm.name.strip():
        raise BadInput(f"name={arm.name!r}: give it a name")
    if arm.name == "start" or arm.protocol == "start":
        raise BadInput("the start, the dense model that pruning begins with, is made from a task's dense: by itself")
    one_of("protocol", arm.protocol, PROTOCOLS)
    if arm.protocol in MASKED:
        _check_of(arm, arms)
    elif arm.of is not None:
        raise BadInput(f"of={arm.of!r}: protocol {arm.protocol!r} takes no masks of another method; {', '.join(MASKED)} do")
    if arm.protocol in PRUNING:
        _check_recipe(arm)
    elif arm.settings:
        raise BadInput(f"protocol {arm.protocol!r} takes no choices of a pruning method (found {', '.join(arm.settings)})")
    if arm.retrain is not None:
        with placed("retrain"):
            check_retrain(arm, arm.retrain)
    whole("rounds", arm.rounds, 1)
    if arm.strategy not in (1, 2):
        raise BadInput(f"strategy={arm.strategy!r}: 1 goes back in every round, 2 only before the last training")
    number("cap", arm.cap, lambda cap: cap >= 1, "at least 1")


def _check_of(arm: Arm, arms: Sequence[Arm]) -> None:
    pruning = {other.name: other for other in arms if other.protocol in PRUNING}
    if arm.of not in pruning:
        others = {other.name: other.protocol for other in arms}
        found = f"follows protocol {others[arm.of]!r}, which prunes nothing" if arm.of in others else "is none of the methods"
        raise BadInput(f"of={arm.of!r} {found}; those that prune are {', '.join(pruning) or 'none'}{near(arm.of, pruning)}")


def _check_recipe(arm: Arm) -> None:
    for key, why in FIXED.items():
        if key in arm.settings:
            raise BadInput(f"key {key!r} is not a method's to say: {why}")
    _, recipe = _method(arm)
    if while_training(arm):
        if arm.protocol == "iterative":
            raise BadInput(f"method {recipe.method!r} prunes while it trains, so it has no rounds; protocol 'prune' runs it")
        return
    for key in WHILE_TRAINING:
        if key in arm.settings:
            raise BadInput(f"key {key!r} has no use here: method {recipe.method!r} prunes at once, unless it has a "
                           "schedule; methods that prune while the model trains take it, as gmp does")  # fmt: skip
    many = arm.protocol == "iterative" or (arm.protocol == "tickets" and arm.rounds > 1)
    if many and fixed_share(arm) is not None:
        raise BadInput(f"structure={recipe.structure!r} removes its share at once, so it has no rounds")


def _method(arm: Arm) -> tuple[Method, Recipe]:
    """An arm's method and its recipe with the method's defaults; raises what cannot go together."""
    from secateurs.planning import Choices
    from secateurs.registry import find_method
    from secateurs.train.round_choices import method_in_rounds

    said = Recipe.from_dict(arm.settings)
    method = method_in_rounds(said) if arm.protocol == "tickets" else find_method(said.method)(said.options)
    recipe = said.with_defaults(method.defaults)
    Choices.of(recipe, method)
    return method, recipe


def _check_points(comparison: Comparison) -> None:
    labels = [point.label for point in comparison.points]
    no_doubles("sparsities" if any(p.sparsity is not None for p in comparison.points) else "compressions", labels)
    for point in comparison.points:
        if (point.sparsity is None) == (point.compression is None):
            raise BadInput(f"{point}: a point is a sparsity or a compression ratio")
        if point.sparsity is not None:
            check_sparsity(point.sparsity, "sparsities")
        if point.compression is not None:
            number("compressions", point.compression, lambda c: c >= 1, "how many times smaller, at least 1")
    pruning = [arm for arm in comparison.arms if arm.protocol in PRUNING]
    open_arms = [arm.name for arm in pruning if fixed_share(arm) is None and not finds_amount(arm)]
    for task in comparison.tasks:
        if open_arms and not comparison.points and not task.sparsities:
            raise BadInput(f"how much does {open_arms[0]!r} remove on task {task.name!r}? give sparsities: [0.8, 0.9] or "
                           "compressions: [2, 4, 8]")  # fmt: skip


def _check_together(comparison: Comparison, task: Task, arm: Arm) -> None:
    if arm.protocol == "small-dense" and not task.widths:
        raise BadInput("'small-dense' chooses among the task's widths, and it has none; give it width and widths, or leave "
                       "'small-dense' out: it is added to every task that has widths")  # fmt: skip
    if arm.protocol == "rewound" and task.dense and task.dense.checkpoint is not None:
        raise BadInput(f"'rewound' goes back to the initial weights, which the stored model {task.dense.checkpoint!r} does not "
                       "have; 'reinitialised' takes others")  # fmt: skip
    if arm.protocol == "tickets":
        _check_rewind(task, arm)
    if arm.rounds > task.steps:
        raise BadInput(f"rounds={arm.rounds} do not fit into {task.steps} steps")
    if arm.protocol == "prune":
        shares = task.sparsities or tuple(p.sparsity for p in comparison.points if p.sparsity is not None)
        _check_schedule(task, arm, shares if fixed_share(arm) is None else (fixed_share(arm),))


def _check_rewind(task: Task, arm: Arm) -> None:
    from secateurs.train.rewinding import Rewind

    if task.dense is not None and task.dense.checkpoint is not None:
        raise BadInput(f"'tickets' begins with initial weights, which the stored model {task.dense.checkpoint!r} does not have")
    if arm.rewind != "own":
        Rewind.of(arm.rewind, task.budget)


def _check_schedule(task: Task, arm: Arm, shares: Sequence[float | None]) -> None:
    """The whole schedule must fit into the task's steps and rise to every share; what compressions come to is not known yet."""
    from secateurs.planning import make_schedule

    _, recipe = _method(arm)
    if while_training(arm):
        lowest = min((share for share in shares if share is not None), default=recipe.initial_sparsity)
        make_schedule(Recipe.from_dict({**recipe.to_dict(), "total_steps": task.steps}), lowest)
