"""From a recipe, scores and costs to the indices that stay in every coupled group."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from secateurs.core.count import removed_count
from secateurs.core.knapsack import Order, Queue, rank
from secateurs.errors import BadInput, near
from secateurs.graph.groups import Graph, Group
from secateurs.planning.budgets import BUDGETS, Budget
from secateurs.planning.group_costs import Costs
from secateurs.recipe import Recipe

__all__ = ["KINDS", "SCOPES", "Cutting", "choose_groups", "cut_groups", "forced", "keeps_of"]

#: The kinds of groups that a structure's word stands for; ``groups`` are all.
KINDS = {
    "channels": ("channels",),
    "heads": ("heads", "kv-heads"),
    "kv-heads": ("kv-heads",),
    "head-dims": ("head-dims",),
    "neurons": ("neurons", "hidden"),
    "hidden": ("hidden",),
    "width": ("width",),
    "experts": ("experts",),
}

SCOPES = ("local", "kind", "global", "isomorphic", "knapsack")


@dataclass(frozen=True)
class Cutting:
    """How scores become counts.

    Attributes:
        scope: what is ranked together, and so loses the same share: the indices of one group (``local``), of groups with the
            same operators (``isomorphic``), of one ``kind`` (heads among heads, channels among channels), or all
            (``global``). ``knapsack`` ranks all by score per unit of the budget saved.
        round_to: what a group keeps is a multiple of this, rounded down, or everything.
        least: how many indices every group keeps: a count, or a share of its size.
    """

    scope: str = "local"
    round_to: int = 1
    least: int | float = 1

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise BadInput(f"scope={self.scope!r} is unknown; use one of {', '.join(SCOPES)}" + near(self.scope, SCOPES))
        lawful = isinstance(self.least, (int, float)) and not isinstance(self.least, bool)
        if not lawful or not (self.least >= 1 if isinstance(self.least, int) else 0 <= self.least <= 1):
            raise BadInput(f"least={self.least!r}: give how many indices every group keeps, at least 1, or the share of them")

    def least_of(self, size: int) -> int:
        """The fewest that a group of ``size`` keeps."""
        if isinstance(self.least, int):
            return min(self.least, size)
        return max(1, size - removed_count(size, 1 - float(self.least), least=0) if self.least > 0 else 1)


def choose_groups(graph: Graph, recipe: Recipe) -> tuple[Group, ...]:
    """The prunable groups that a recipe's structures, ``include`` and ``exclude`` (globs of tensors or modules) select.

    Raises:
        BadInput: nothing is selected; the message says what there is, and why the rest is frozen.
    """
    kinds = {kind for word in recipe.structures for kind in KINDS.get(word, ())}
    everything = "groups" in recipe.structures
    prunable = graph.prunable()
    chosen = [group for group in prunable if everything or group.kind in kinds]
    if not chosen:
        raise BadInput(f"the model has no {' or '.join(recipe.structures)} that could go: " + _what_there_is(graph, kinds))
    for name, patterns in (("include", recipe.include), ("exclude", recipe.exclude)):
        for pattern in patterns:
            if not any(_touches(group, [pattern]) for group in graph.groups):
                known = [piece.tensor for group in prunable for piece in group.slices]
                raise BadInput(f"{name}: {pattern!r} matches no tensor of a group" + near(pattern, known))
    selected = [g for g in chosen if (not recipe.include or _touches(g, recipe.include)) and not _touches(g, recipe.exclude)]
    if not selected:
        raise BadInput(f"include= and exclude= leave none of the {len(chosen)} groups of {' or '.join(recipe.structures)}")
    return _with_ties(selected, prunable)


def _with_ties(selected: Sequence[Group], prunable: Sequence[Group]) -> tuple[Group, ...]:
    """Groups whose counts are tied go together or not at all."""
    names = {group.name for group in selected}
    broken = {g.tie for g in prunable if g.tie is not None and g.name not in names}
    left = tuple(group for group in selected if group.tie is None or group.tie not in broken)
    if not left:
        raise BadInput(f"{selected[0].name!r} keeps as many indices as groups that are not selected: select those too")
    return left


def _touches(group: Group, patterns: Iterable[str]) -> bool:
    names = {name for piece in group.slices for name in (piece.tensor, piece.tensor.rpartition(".")[0])} | {group.name}
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _what_there_is(graph: Graph, wanted: Set[str]) -> str:
    kinds = sorted({group.kind for group in graph.prunable()})
    if kinds:
        why = dict.fromkeys(group.frozen for group in graph.groups if group.frozen and group.kind in wanted)
        stays = f"what it has of them is frozen ({'; '.join(list(why)[:3])}); " if why else ""
        return f"{stays}it has groups of {', '.join(kinds)} (structures=['groups'] takes all)"
    reasons = list(dict.fromkeys(frozen.reason for frozen in graph.frozen))
    return "everything is frozen" + (f" ({'; '.join(reasons[:3])})" if reasons else "")


def cut_groups(groups: Sequence[Group], scores: Mapping[str, Tensor], cutting: Cutting, budget: Budget, costs: Costs,
               seconds: Callable[[Mapping[str, int]], float] | None = None, progress: Fraction = Fraction(1),
               ) -> dict[str, int]:  # fmt: skip
    """How many indices every group keeps.

    Args:
        groups: those that may lose something.
        scores: ``[size]``, or ``[parents, size]`` of a ragged child.
        cutting: what is ranked together, and how counts are rounded.
        budget: how much.
        costs: parameters, multiply-adds and bytes as functions of counts.
        seconds: the latency as such a function; it must not grow when more goes.
        progress: how far to go of the way to the budget.

    Raises:
        BadInput: the budget cannot be met.
    """
    tied = _tied(groups)
    measure = _measure(budget, costs, seconds)
    queues = [_queue(together, scores, cutting, measure, budget, costs) for together in tied]
    order = rank(queues)
    spread = {queue.name: [group.name for group in together] for queue, together in zip(queues, tied, strict=True)}
    if measure is None:
        counts = order.by_share(float(Fraction(str(budget.value)) * progress))
    else:
        counts = _to_fit(order, lambda kept: measure(_spread(kept, spread, costs)), budget, progress, costs)
    return _spread(counts, spread)


def _measure(budget: Budget, costs: Costs, seconds: Callable[[Mapping[str, int]], float] | None,
             ) -> Callable[[Mapping[str, int]], float] | None:  # fmt: skip
    if budget.name == "ratio":
        return None
    if budget.name == "latency":
        if seconds is None:
            raise BadInput(f"latency={budget.value!r} needs a table of measured times")
        return seconds
    return {"params": costs.parameters, "flops": costs.multiply_adds, "bytes": costs.bytes}[budget.name]


def _to_fit(order: Order, measure: Callable[[Mapping[str, int]], float], budget: Budget, progress: Fraction, costs: Costs,
            ) -> dict[str, int]:  # fmt: skip
    dense, fewest = measure(order.after(0)), measure(order.after(len(order.queue)))
    limit = budget.limit(dense)
    if fewest > limit:
        raise BadInput(f"{budget.name}={budget.value!r} is out of reach: it allows {_amount(limit)} of {_amount(dense)} "
                       f"{BUDGETS[budget.name]}, and {_amount(fewest)} are left when all that may go has gone; allow more, "
                       "or name more structures")  # fmt: skip
    step = limit if progress == 1 else dense - float(Fraction(dense - limit) * progress)
    return order.to_fit(lambda kept: measure(kept) <= step, f"{budget.name}={budget.value!r} is out of reach")


def _amount(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _tied(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that lose the same number, each alone where none is tied to it."""
    together: dict[str, list[Group]] = {}
    for group in groups:
        together.setdefault(f"tie {group.tie}" if group.tie is not None else f"group {group.name}", []).append(group)
    return list(together.values())


def _queue(tied: Sequence[Group], scores: Mapping[str, Tensor], cutting: Cutting, measure: object, budget: Budget,
           costs: Costs) -> Queue:  # fmt: skip
    """Tied groups, and the rows of a ragged child, lose their lowest at the same time, judged by the mean of these."""
    first = tied[0]
    if len({group.size for group in tied}) > 1:
        raise BadInput(f"the groups tied to {first.name!r} differ in size: they cannot keep equal counts")
    rows = torch.cat([torch.atleast_2d(scores[group.name]) for group in tied])
    ascending = rows.sort(dim=1).values.mean(0)
    if cutting.scope == "knapsack":
        ascending = ascending / _saving(tied, budget, measure, costs)
    scope = {"local": first.name, "isomorphic": first.signature, "kind": first.kind}.get(cutting.scope, "")
    return Queue(first.name, ascending, scope, cutting.least_of(first.size), _multiple(first, cutting.round_to), len(rows))


def _multiple(group: Group, round_to: int) -> int:
    """Of indices, so that the dimensions they span are multiples of ``round_to``: one head of 64 entries is one of 8."""
    spans = [piece.index.shape[1] for piece in group.slices if piece.role in ("out", "in")]
    return round_to // math.gcd(round_to, *spans) if spans else round_to


def _saving(tied: Sequence[Group], budget: Budget, measure: object, costs: Costs) -> float:
    """What one index of every tied group saves of the dense model's budget."""
    if not callable(measure):
        raise BadInput(f"scope='knapsack' weighs scores against what they save: give a budget, not ratio={budget.value!r}")
    fewer = {**costs.whole, **{group.name: group.size - 1 for group in tied}}
    dense = measure(costs.whole)
    return max((dense - measure(fewer)) / dense, 1e-12)


def _spread(counts: Mapping[str, int], spread: Mapping[str, Sequence[str]], costs: Costs | None = None) -> dict[str, int]:
    """Counts by queue as counts by group, over everything where ``costs`` knows more groups."""
    whole = dict(costs.whole) if costs is not None else {}
    return {**whole, **{name: count for queue, count in counts.items() for name in spread[queue]}}


def keeps_of(groups: Sequence[Group], scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
    """The indices that stay where groups lose something: the highest scores, of equal ones the lower index; int64, ascending.

    A ragged child has a row for every kept index of its parent.
    """
    keeps = {g.name: _best(scores[g.name], counts[g.name]) for g in groups if counts[g.name] < g.size}
    for group in groups:
        if group.name in keeps and group.parent in keeps:
            keeps[group.name] = keeps[group.name][keeps[group.parent]]
    return keeps


def _best(scores: Tensor, count: int) -> Tensor:
    return torch.argsort(scores, dim=-1, descending=True, stable=True)[..., :count].sort(dim=-1).values


def forced(scores: Mapping[str, Tensor], keeps: Mapping[str, Tensor], parents: Mapping[str, str]) -> dict[str, Tensor]:
    """``scores`` with what is gone already below everything else, so that it stays gone."""
    return {name: _below(name, found, keeps, parents) if name in keeps else found for name, found in scores.items()}


def _below(name: str, scores: Tensor, keeps: Mapping[str, Tensor], parents: Mapping[str, str]) -> Tensor:
    keep, result = keeps[name], torch.full_like(scores, -torch.inf)
    if keep.dim() == 1:
        result[keep] = scores[keep]
        return result
    rows = keeps.get(parents[name], torch.arange(len(keep)))
    gone = torch.ones(len(scores), dtype=torch.bool)
    gone[rows] = False
    result[gone] = scores[gone]  # their parent is gone: they are no longer ranked
    result[rows[:, None], keep] = scores[rows[:, None], keep]
    return result
