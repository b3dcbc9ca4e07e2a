"""Which repeated blocks of a model can leave whole, which go, and what is left of its parameters and multiply-adds.

A block is left out by handing its input on: where blocks are residual, that is the model without what the block added.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.count import removed_count
from secateurs.core.criteria import noise
from secateurs.core.group_scores import reduce_members
from secateurs.errors import BadInput, near
from secateurs.formats.depth import new_name
from secateurs.graph.groups import Frozen
from secateurs.measure import multiply_adds
from secateurs.measure.mode import evaluating
from secateurs.models import find_blocks, survey
from secateurs.planning.budgets import Budget
from secateurs.planning.choose_groups import Cutting
from secateurs.planning.group_costs import Cost, tensors_of
from secateurs.planning.group_scores import GroupSupply, Scoring, weight_scores

__all__ = ["BlockCosts", "Blocks", "choose_blocks", "find_removable", "frozen_blocks", "score_blocks", "skipping"]

Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Blocks:
    """A list of repeated blocks that run one after the other.

    Attributes:
        path: the qualified name of the list.
        modules: its blocks.
        fixed: why a block must stay, by its number.
        forms: what each of the others returns: 0 for a tensor, n for a tuple of n of which the first alone is one.
    """

    path: str
    modules: tuple[nn.Module, ...]
    fixed: dict[int, str] = field(default_factory=dict)
    forms: dict[int, int] = field(default_factory=dict)

    def name(self, number: int) -> str:
        """The qualified name of a block."""
        return f"{self.path}.{number}".removeprefix(".")


def find_removable(model: nn.Module, example: Any) -> tuple[Blocks, ...]:
    """The lists of repeated blocks of ``model``, run once on ``example`` to see which blocks return what they are given.

    Raises:
        BadInput: no repeated blocks hold most of the model's weights, or none of them can be left out.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    named = [found for found in find_blocks(model, survey(model)) if found.chained and _is_counted(modules[found.path])]
    lists = tuple(Blocks(found.path, tuple(modules[name] for name in found.names)) for found in named)
    if not lists:
        raise BadInput(f"this {type(model).__name__} has no list of repeated blocks (a ModuleList or Sequential of modules of "
                       "one class) that holds most of its weights")  # fmt: skip
    calls: dict[tuple[str, int], list[str | int]] = {}
    with ExitStack() as stack:
        for blocks in lists:
            for number, module in enumerate(blocks.modules):
                hook = partial(_watch, calls.setdefault((blocks.path, number), []))
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        with evaluating(model):
            _call(model, example)
    for blocks in lists:
        for number in range(len(blocks.modules)):
            _settle(blocks, number, calls[blocks.path, number])
    if not any(blocks.forms for blocks in lists):
        raise BadInput(f"no block can be left out: {lists[0].name(0)!r} and the others stay since each {lists[0].fixed[0]}")
    return lists


def frozen_blocks(lists: Sequence[Blocks]) -> tuple[Frozen, ...]:
    """The blocks that must stay, for a plan."""
    return tuple(Frozen(blocks.name(number), 1, reason, type(blocks.modules[number]).__name__)
                 for blocks in lists for number, reason in blocks.fixed.items())  # fmt: skip


@contextmanager
def skipping(lists: Sequence[Blocks], keeps: Kept) -> Iterator[None]:
    """Inside, the blocks that ``keeps`` leaves out hand their input on; a list it does not name runs whole."""
    with ExitStack() as stack:
        for blocks in lists:
            for number in set(range(len(blocks.modules))) - set(keeps.get(blocks.path, range(len(blocks.modules)))):
                state = vars(blocks.modules[number])
                stack.callback(partial(state.__setitem__, "forward", state["forward"]) if "forward" in state
                               else partial(state.__delitem__, "forward"))  # fmt: skip
                state["forward"] = partial(_hand_on, blocks.forms[number])
        yield


@dataclass(frozen=True)
class BlockCosts:
    """What a model costs with only some blocks; multiply-adds are counted on ``example``."""

    model: nn.Module
    lists: Sequence[Blocks]
    example: Any

    def __call__(self, keeps: Kept) -> Cost:
        """All three costs."""
        return Cost(self.parameters(keeps), self.multiply_adds(keeps), self.bytes(keeps))

    def parameters(self, keeps: Kept) -> int:
        """Entries of the parameters that have a name outside the blocks that go."""
        left = {id(p): p.numel() for name, p in self.model.named_parameters(remove_duplicate=False) if _stays(name, keeps)}
        return sum(left.values())

    def bytes(self, keeps: Kept) -> int:
        """Of parameters and stored buffers."""
        stored = self.model.state_dict(keep_vars=True)
        known = {id(tensor) for tensor in tensors_of(self.model).values()}
        left = {id(t): t.nbytes for name, t in stored.items() if id(t) in known and _stays(name, keeps)}
        return sum(left.values())

    def multiply_adds(self, keeps: Kept) -> int:
        """Of one forward pass on the example."""
        args, named = _arguments(self.example)
        with skipping(self.lists, keeps):
            return multiply_adds(self.model, *args, **named).dense


@torch.no_grad()
def score_blocks(lists: Sequence[Blocks], scoring: Scoring, supply: GroupSupply, model: nn.Module) -> dict[str, Tensor]:
    """Float64 ``[blocks]`` by list: the criterion's scores of a block's prunable weights, added up and aggregated.

    Raises:
        NotFinite: a score is NaN or infinite.
        BadInput: a statistic is missing, or a block holds nothing the criterion can judge.
    """
    if scoring.criterion.needs == {"noise"}:
        return {b.path: noise(scoring.seed, b.path, torch.Size([len(b.modules)]), torch.device("cpu")).double() for b in lists}
    members: dict[str, list[Tensor]] = {blocks.name(n): [] for blocks in lists for n in range(len(blocks.modules))}
    for weight in survey(model).weights:
        owner = next((name for name in members if f"{weight.name}.".startswith(f"{name}.")), None)
        known = supply(weight.name) if owner is not None else None
        if owner is not None and known is not None:
            scores = weight_scores(weight.name, weight.parameter, scoring, known).double().clamp_min(0)
            members[owner].append(scores.pow(scoring.exponent).sum().reshape(1).cpu())
    for name, found in members.items():
        if not found:
            raise BadInput(f"criterion={scoring.criterion.name!r} can judge no weight of {name!r}")
    return {blocks.path: torch.cat([reduce_members(members[blocks.name(n)], scoring.aggregate)
                                    for n in range(len(blocks.modules))]) for blocks in lists}  # fmt: skip


def choose_blocks(lists: Sequence[Blocks], scores: Mapping[str, Tensor], selected: tuple[Sequence[str], Sequence[str]],
                  cutting: Cutting, budget: Budget | None, costs: BlockCosts) -> dict[str, list[int]]:  # fmt: skip
    """The numbers of the blocks that stay in each list that loses some.

    Blocks go by ascending score (of equal ones the later goes first): in the scope ``global`` over all lists, otherwise so that
    every list has lost the same share. A ratio removes ``floor(ratio N + 1/2)`` of the N that may go; other budgets are met by
    as few as possible. Every list keeps one block, or what ``cutting`` says.

    Args:
        lists: from :func:`find_removable`.
        scores: from :func:`score_blocks`.
        selected: ``include`` and ``exclude``, globs of names of blocks or lists.
        cutting: its ``scope`` and ``least``.
        budget: how much; None removes every block that ``include`` selects.
        costs: what is left with only some blocks.

    Raises:
        BadInput: a pattern matches no block, a block that was named must stay, or the budget is out of reach.
    """
    candidates = _candidates(lists, *selected, strict=budget is None)
    order = list(_order(lists, candidates, scores, cutting))
    total = sum(map(len, candidates.values()))
    if budget is None or budget.name == "ratio":
        count = total if budget is None else removed_count(total, float(budget.value), least=0)
        if count > len(order):
            raise BadInput(f"{count} blocks would go, and {len(order)} can: every list keeps some; name or ask for less")
        return _kept(lists, order[:count])
    return _kept(lists, order[: _fewest(lists, order, budget, costs)])


def _fewest(lists: Sequence[Blocks], order: Sequence[tuple[str, int]], budget: Budget, costs: BlockCosts) -> int:
    measures: dict[str, Callable[[Kept], int]] = {
        "params": costs.parameters, "flops": costs.multiply_adds, "bytes": costs.bytes}  # fmt: skip
    if budget.name not in measures:
        raise BadInput(f"{budget.name}={budget.value!r}: of layers give ratio=, params=, flops= or bytes=")
    measure = measures[budget.name]
    limit = budget.limit(measure({}))
    low, high = 0, len(order)
    if measure(_kept(lists, order)) > limit:
        raise BadInput(f"{budget.name}={budget.value!r} is out of reach by leaving out the {high} blocks that can go")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if measure(_kept(lists, order[:middle])) <= limit else (middle + 1, high)
    return low


def _order(lists: Sequence[Blocks], candidates: Mapping[str, Sequence[int]], scores: Mapping[str, Tensor],
           cutting: Cutting) -> Iterator[tuple[str, int]]:  # fmt: skip
    """Blocks in the order in which they go, as far as every list keeps its least."""
    keyed = []
    for place, blocks in enumerate(lists):
        mine = sorted(candidates[blocks.path], key=lambda n: (float(scores[blocks.path][n]), -n))
        for rank, number in enumerate(mine[: len(blocks.modules) - cutting.least_of(len(blocks.modules))]):
            score = float(scores[blocks.path][number])
            keyed.append((score if cutting.scope == "global" else (rank + 0.5) / len(mine), -place, -number, blocks.path))
    yield from ((path, -number) for _, _, number, path in sorted(keyed))


def _candidates(lists: Sequence[Blocks], include: Sequence[str], exclude: Sequence[str], strict: bool) -> dict[str, list[int]]:
    known = [name for blocks in lists for name in (blocks.path, *map(blocks.name, range(len(blocks.modules))))]
    for said, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not fnmatch.filter(known, pattern):
                raise BadInput(f"{said}: {pattern!r} matches no block{near(pattern, known)}; the blocks are {known[1]!r}, ...")
    found = {}
    for blocks in lists:
        chosen = [n for n in range(len(blocks.modules))
                  if (not include or _matches(blocks, n, include)) and not _matches(blocks, n, exclude)]  # fmt: skip
        fixed = [n for n in chosen if n in blocks.fixed]
        if strict and fixed:
            raise BadInput(f"{blocks.name(fixed[0])!r} cannot be left out: it {blocks.fixed[fixed[0]]}")
        found[blocks.path] = [n for n in chosen if n not in blocks.fixed]
    if not any(found.values()):
        raise BadInput("include= and exclude= leave no block that could go")
    return found


def _matches(blocks: Blocks, number: int, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in (blocks.path, blocks.name(number)))


def _kept(lists: Sequence[Blocks], gone: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    left = {blocks.path: [n for n in range(len(blocks.modules)) if (blocks.path, n) not in set(gone)] for blocks in lists}
    return {blocks.path: left[blocks.path] for blocks in lists if len(left[blocks.path]) < len(blocks.modules)}


def _is_counted(module: nn.Module) -> bool:
    return list(module._modules) == [str(n) for n in range(len(module._modules))]


def _stays(name: str, keeps: Kept) -> bool:
    return new_name(name, keeps) is not None


def _watch(calls: list[str | int], module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    """Note the form of a call's output, or why the block could not be left out there."""
    given = _first(args, kwargs)
    first, *rest = output if isinstance(output, tuple) and output else (output,)
    if not isinstance(given, Tensor) or not isinstance(first, Tensor):
        calls.append(f"takes a {type(given).__name__} and returns a {type(first).__name__}, not a tensor for a tensor")
    elif first.shape != given.shape or first.dtype != given.dtype:
        calls.append(f"makes {tuple(first.shape)} of {tuple(given.shape)}")
    elif any(isinstance(t, Tensor) for t in torch.utils._pytree.tree_leaves(rest)):
        calls.append("returns more than the stream, on which what follows may build")
    else:
        calls.append(len(output) if isinstance(output, tuple) else 0)


def _settle(blocks: Blocks, number: int, calls: Sequence[str | int]) -> None:
    problem = next((call for call in calls if isinstance(call, str)), None)
    forms = [call for call in calls if isinstance(call, int)]
    if problem is not None or not forms or len(set(forms)) > 1:
        blocks.fixed[number] = problem or "does not run on the example"
    else:
        blocks.forms[number] = forms[0]


def _hand_on(form: int, *args: Any, **kwargs: Any) -> Any:
    given = _first(args, kwargs)
    return (given, *[None] * (form - 1)) if form else given


def _first(args: Any, kwargs: Any) -> Any:
    return next(iter((*args, *kwargs.values())), None)


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, (tuple, list)) else ((example,), {})


def _call(model: nn.Module, example: Any) -> None:
    args, named = _arguments(example)
    try:
        model(*args, **named)
    except Exception as error:  # the user's code on the user's inputs
        raise BadInput(f"the model does not run on the example: {type(error).__name__}: {error}") from error
