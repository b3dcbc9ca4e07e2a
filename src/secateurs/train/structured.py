"""Remove whole structures: trace, score, choose, cut, verify. The smaller model computes what the masked one does.

Each stage is a room's own: ``graph`` says what must leave together, ``planning`` which of it goes, ``apply`` cuts and proves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateurs.apply.patching import check_plain
from secateurs.apply.proof import verify_shrunk
from secateurs.apply.shrink import Shrunk, shrink
from secateurs.apply.slicing import slice_optimizer, slice_tensors
from secateurs.apply.verify import Verification
from secateurs.core.criteria import Criterion
from secateurs.core.method import Method
from secateurs.errors import BadInput, BrokenPromise
from secateurs.graph import trace
from secateurs.graph.groups import Graph, Group
from secateurs.graph.trace import unrunnable
from secateurs.measure import latency
from secateurs.models import unwrap
from secateurs.planning.block_scores import score_blocks
from secateurs.planning.budgets import Budget, budget_of
from secateurs.planning.choose_groups import Cutting, choose_groups, cut_groups, forced, keeps_of
from secateurs.planning.group_costs import Costs
from secateurs.planning.group_scores import Scoring, score_groups
from secateurs.planning.groups import GroupEntry, GroupPlan, members
from secateurs.planning.latency_costs import LatencyCosts
from secateurs.planning.multiply_adds import multiply_adds
from secateurs.recipe import FOR_STRUCTURES, Recipe
from secateurs.registry import METHODS, find_method
from secateurs.train.group_statistics import GroupStatistics
from secateurs.train.losses import Loss, default_loss
from secateurs.train.once import Pruned
from secateurs.train.reconstruction import Rebuilt, Reconstruction
from secateurs.train.recovery import noise_batches, recover
from secateurs.train.reestimate import reestimated

__all__ = [
    "PrunedGroups", "Run", "needed", "plan", "prune_groups", "regrow", "replay", "settled_structures", "take_batches",
]  # fmt: skip

#: What a recipe of single weights may say that means nothing here.
_WEIGHTS_ONLY = ("sparsity", "keep", "total_sparsity", "allocation", "schedule", "begin", "end", "every", "total_steps",
                 "enforcement", "overrides", "types", "exempt")  # fmt: skip


@dataclass(frozen=True)
class PrunedGroups(Pruned[GroupPlan]):
    """What :func:`secateurs.prune` gives back where structures are removed; more than :class:`secateurs.Pruned`:

    Attributes:
        verification: that the smaller model computes what the dense one does with the removed indices set to zero.
        is_exported: whether ``model`` is the exported program instead of the user's class.
        why: where it is, what stood in the way.
        graph: the dense model's groups, by which optimizer states and averaged copies are cut too; None where layers went.
    """

    verification: Verification | None = None
    is_exported: bool = False
    why: str = ""
    graph: Graph | None = field(default=None, repr=False)

    def undo(self, dense: nn.Module) -> None:
        """Write this model's values into ``dense`` (a model as it was before), whose other values are those removed."""
        if self.plan.removes_layers:
            from secateurs.train.depth import regrow_layers  # here: it builds on this file

            regrow_layers(self.model, dense, self.plan)
            return
        assert self.graph is not None
        regrow(self.model, dense, self.graph, self.plan)


def plan(model: nn.Module, method: str | Recipe = "magnitude", *, example: Any = None, calibration: Iterable[Any] | None = None,
         loss: Loss | None = None, **settings: Any) -> GroupPlan:  # fmt: skip
    """What :func:`secateurs.prune` with the same arguments would remove: groups, members, what is frozen and why, and the
    parameters, multiply-adds and bytes before and after. The model is left as it is.

    Raises:
        BadInput: no structure is named, or whatever else cannot work.
    """
    recipe = Recipe.of(method, settings)
    if not recipe.structures:
        raise BadInput("a plan of whole structures needs some: sc.plan(model, 'channels', example=..., flops=0.5); the plan "
                       "of single weights is that of sc.prune(...).plan")  # fmt: skip
    if recipe.removes_layers:
        from secateurs.train.depth import plan_layers  # here: it builds on this file

        return plan_layers(model, recipe, example, calibration, loss)
    return Run.of(model, recipe, example, calibration, loss).plan()


def prune_groups(model: nn.Module, recipe: Recipe, *, example: Any, calibration: Iterable[Any] | None = None,
                 loss: Loss | None = None, inplace: bool = False, optimizer: torch.optim.Optimizer | None = None,
                 ) -> PrunedGroups:  # fmt: skip
    """Remove the structures that ``recipe`` names from a copy of ``model``, or ``inplace`` from itself; see
    :func:`secateurs.prune`.

    Raises:
        BadInput: before anything is changed: the model cannot be traced on ``example``, nothing may go, the budget is out of
            reach, or a choice does not fit.
        BrokenPromise: the smaller model does not compute what the masked one does; nothing is changed.
    """
    if recipe.removes_layers:
        if optimizer is not None:
            raise BadInput("optimizer= is cut with tensors that become smaller; where whole layers go, make a new one for the "
                           "parameters of the result")  # fmt: skip
        return replay(model, plan(model, recipe, example=example, calibration=calibration, loss=loss), example=example,
                      inplace=inplace)  # fmt: skip
    run = Run.of(model, recipe, example, calibration, loss)
    planned = run.plan()
    return _carry_out(model, run.graph, planned, run.recipe, example, inplace, optimizer, run.recover(planned))


def replay(model: nn.Module, planned: GroupPlan, *, example: Any, inplace: bool = False,
           optimizer: torch.optim.Optimizer | None = None) -> PrunedGroups:  # fmt: skip
    """Remove from a fresh copy of a model what ``planned`` removes; what stays keeps its values, whatever the recovery was.

    Raises:
        BadInput: the plan is not one for this model.
        BrokenPromise: as in :func:`prune_groups`.
    """
    if planned.removes_layers:
        from secateurs.train.depth import cut_layers  # here: it builds on this file

        return cut_layers(model, planned, Recipe.from_dict(planned.recipe), example, inplace)
    graph = planned.check(_traced(unwrap(model), example))
    return _carry_out(model, graph, planned, Recipe.from_dict(planned.recipe), example, inplace, optimizer)


def regrow(pruned: nn.Module, dense: nn.Module, graph: Graph, planned: GroupPlan) -> None:
    """Write the values of ``pruned`` to where they were in ``dense``; what was removed keeps the values ``dense`` has.

    Raises:
        BadInput: the models are not the ones of the plan; nothing is changed.
    """
    theirs, mine = unwrap(pruned).state_dict(), unwrap(dense).state_dict()
    places = slice_tensors(graph, planned.keeps, {name: _numbered(value) for name, value in mine.items()})
    for name, place in places.items():
        if name not in theirs or theirs[name].shape != place.shape:
            found = tuple(theirs[name].shape) if name in theirs else "missing"
            raise BadInput(f"{name!r} is {found} in the pruned model, and by the plan {tuple(place.shape)}: not the same model")
    with torch.no_grad():
        for name, place in places.items():
            mine[name].view(-1)[place.reshape(-1).to(mine[name].device)] = theirs[name].reshape(-1).to(mine[name])


def _numbered(tensor: Tensor) -> Tensor:
    return torch.arange(tensor.numel()).reshape(tensor.shape)


@dataclass(frozen=True)
class Run:
    """Everything of a structured run that is settled before anything is scored."""

    model: nn.Module
    graph: Graph
    groups: tuple[Group, ...]
    recipe: Recipe
    scoring: Scoring
    cutting: Cutting
    budget: Budget
    costs: Costs
    example: Any
    batches: list[Any] | None
    loss: Loss
    how: Reconstruction

    @classmethod
    def of(cls, model: nn.Module, said: Recipe, example: Any, calibration: Iterable[Any] | None = None,
           loss: Loss | None = None) -> Run:  # fmt: skip
        """Settle it; raises :class:`BadInput` for all that cannot work."""
        recipe, method = settled_structures(said)
        budget = budget_of(recipe)
        criterion = method.criterion(recipe.criterion or "magnitude")
        scoring = Scoring(criterion, recipe.aggregate or "sum", recipe.normalize or "none", recipe.power, seed=recipe.seed,
                          roles=method.members)  # fmt: skip
        cutting = Cutting(recipe.scope or "local", recipe.round_to or 1, 1 if recipe.least is None else recipe.least)
        if calibration is None and method.made_up():
            calibration = noise_batches(needed(example), method.made_up(), recipe.seed)
        batches = take_batches(calibration, criterion, recipe.seed)
        if batches is None and (recipe.recovery or "none") != "none":
            raise BadInput(f"recovery={recipe.recovery!r} works with data: pass calibration=, an iterable of batches")
        how = Reconstruction(**{"seed": recipe.seed, **method.reconstruction()})
        inner = unwrap(model)
        graph = _traced(inner, example)
        groups = choose_groups(graph, recipe)
        costs = Costs.of(inner, groups, multiply_adds(graph, [group.name for group in groups]))
        return cls(inner, graph, groups, recipe, scoring, cutting, budget, costs, example, batches, loss or default_loss,
                   how)  # fmt: skip

    def at(self, ratio: float) -> Run:
        """The same run with another share removed."""
        return replace(self, recipe=replace(self.recipe, ratio=ratio), budget=Budget("ratio", ratio))

    def plan(self) -> GroupPlan:
        """Score and choose, in as many steps as the recipe says; what went in a step is zero when the next one scores."""
        steps, keeps, counts = self.recipe.steps or 1, dict[str, Tensor](), dict[str, int]()
        seconds = self._latency() if self.budget.name == "latency" else None
        parents = {group.name: group.parent for group in self.groups if group.parent is not None}
        target = self.model if steps == 1 else copy.deepcopy(self.model)
        for step in range(1, steps + 1):
            scores = forced(self._scores(target), keeps, parents)
            counts = cut_groups(self.groups, scores, self.cutting, self.budget, self.costs, seconds, Fraction(step, steps))
            keeps = keeps_of(self.groups, scores, counts)
            if step < steps:
                _blank(target, self.graph, keeps)
        entries = tuple(GroupEntry(g.name, g.kind, g.size, counts[g.name], members(g)) for g in self.groups)
        return GroupPlan(entries, keeps, self.costs(), self.costs(counts), self.graph.frozen, self.recipe.to_dict())

    def recover(self, planned: GroupPlan) -> Rebuilt | None:
        """A copy of the dense model that makes up for what ``planned`` removes, as the recipe says; None where it says none."""
        if (self.recipe.recovery or "none") == "none" or not planned.removed:
            return None
        how = self.how if self.recipe.recovery == "reconstruct" else None
        return recover(self.model, self.graph, planned.keeps, self.batches or [], how, self.example)

    def _latency(self) -> LatencyCosts:
        dense = partial(latency, self.model, self.example, repeats=15)
        return LatencyCosts.of(self.graph, self.costs.whole, lambda: dense().median_s)

    def _scores(self, model: nn.Module) -> dict[str, Tensor]:
        if not self.how.norms:
            model = reestimated(model, self.batches or [])  # random inputs, normed as data would be
        parameters = dict(model.named_parameters())
        scored = {piece.tensor for group in self.groups for piece in group.slices if self.scoring.counts(piece)}
        asked = {name: p for name, p in parameters.items() if name in scored and p.is_floating_point()}
        supply = GroupStatistics(model, self.scoring.criterion.needs, asked, self.batches, self.loss, self.recipe.seed,
                                 self.how.places)  # fmt: skip
        score = score_blocks if self.scoring.criterion.blocks is not None else score_groups
        return score(self.groups, parameters, self.scoring, supply, {g.name: g for g in self.graph.groups})


def settled_structures(said: Recipe) -> tuple[Recipe, Method]:
    """The recipe with the method's choices filled in, and the method.

    A criterion may be the name of a method that removes structures and judges them in a way of its own.
    """
    if said.criterion in METHODS and find_method(said.criterion).structures and not find_method(said.method).structures:
        said = replace(said, method=said.criterion, criterion=None)
    method = find_method(said.method)(said.options)
    if "training" in method.needs:
        raise BadInput(f"{said.method!r} prunes while a model trains: for structures name one that scores a model as it is, as "
                       "'magnitude' or 'taylor' do")  # fmt: skip
    default = Recipe(structures=said.structures)
    for name in _WEIGHTS_ONLY:
        if getattr(said, name) != getattr(default, name):
            raise BadInput(f"{name}={getattr(said, name)!r} is for single weights; for structures there are "
                           f"{', '.join(n for n in FOR_STRUCTURES if n != 'structures')}")  # fmt: skip
    lawful = {"criterion", *FOR_STRUCTURES}
    return said.with_defaults({key: value for key, value in method.defaults.items() if key in lawful}), method


def needed(example: Any) -> Any:
    """``example``; raises :class:`BadInput` where there is none."""
    if example is None:
        raise BadInput("structures are found by tracing the model: pass example=, its inputs (a tensor, a tuple of arguments, "
                       "or a mapping of them)")  # fmt: skip
    return example


def _traced(model: nn.Module, example: Any) -> Graph:
    """The groups of ``model``; raises :class:`BadInput`, with the remedy, where it could be traced but never cut."""
    if any(getattr(type(module), "_secateurs_masked", False) for module in model.modules()):
        raise BadInput(f"this {type(model).__name__} is being pruned by a Pruner: call its finish() first, which leaves a "
                       "plain module")  # fmt: skip
    check_plain(model)
    tensors = [leaf for leaf in tree_leaves(needed(example)) if isinstance(leaf, Tensor)]
    if tensors and not any(tensor.numel() for tensor in tensors):
        raise BadInput(f"the example is empty, of shape {tuple(tensors[0].shape)}: on it nothing can be compared")
    return trace(model, example)


def take_batches(calibration: Iterable[Any] | None, criterion: Criterion, seed: int) -> list[Any] | None:
    """The batches, which several statistics may go through, or None; a loader that shuffles does so by the seed.

    Raises:
        BadInput: ``criterion`` needs some and there are none, or they are no batches.
    """
    if calibration is None:
        if criterion.needs - {"noise"}:
            raise BadInput(f"criterion={criterion.name!r} needs calibration batches: pass calibration=, for example a list of "
                           "(inputs, targets) pairs")  # fmt: skip
        return None
    if isinstance(calibration, (Tensor, Mapping, str)):
        raise BadInput(f"calibration is a {type(calibration).__name__}: give an iterable of batches, if only [batch]")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        found = list(calibration)
    if not found:
        raise BadInput("calibration gave no batch; pass at least one, for example a list of (inputs, targets)")
    return found


@torch.no_grad()
def _blank(model: nn.Module, graph: Graph, keeps: Mapping[str, Tensor]) -> None:
    """Set every entry of a removed index to zero."""
    parameters = dict(model.named_parameters())
    places = slice_tensors(graph, keeps, {name: _numbered(p) for name, p in parameters.items()})
    for name, place in places.items():
        if place.numel() < parameters[name].numel():
            gone = torch.ones(parameters[name].numel(), dtype=torch.bool)
            gone[place.reshape(-1)] = False
            parameters[name].view(-1)[gone.to(parameters[name].device)] = 0


def _proved(source: nn.Module, graph: Graph, planned: GroupPlan, example: Any) -> tuple[Shrunk, Verification]:
    """Cut and compared; an example that could be traced but not computed (dtypes that do not fit) is told as such."""
    try:
        done = shrink(source, graph, planned.keeps, example=example)
        return done, verify_shrunk(source, done, graph, planned.keeps, example)
    except (BadInput, BrokenPromise):
        raise
    except Exception as error:
        if why := unrunnable(source, example):
            raise BadInput(why) from error
        raise


def _carry_out(model: nn.Module, graph: Graph, planned: GroupPlan, recipe: Recipe, example: Any, inplace: bool,
               optimizer: torch.optim.Optimizer | None = None, recovered: Rebuilt | None = None) -> PrunedGroups:  # fmt: skip
    """Cut, and prove it; what was recovered is cut in the place of the dense model, and the proof is of its values."""
    inner = unwrap(model)
    source = inner if recovered is None else recovered.model
    done, verification = _proved(source, graph, planned, example)
    if inplace and done.is_exported:
        raise BadInput(f"inplace=True: the pruned model is an exported program, not a {type(inner).__name__} ({done.why}); "
                       "leave inplace out, and use the model of the result")  # fmt: skip
    verification.require()
    result = done.model
    if optimizer is not None:
        slice_optimizer(optimizer, graph, planned.keeps, inner, result)
    if inplace:
        inner.__dict__ = result.__dict__
        result = model
    return PrunedGroups(result, planned, planned.report(), recipe, recovered.left if recovered is not None else (),
                        verification=verification, is_exported=done.is_exported, why=done.why, graph=graph)  # fmt: skip
