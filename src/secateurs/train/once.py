"""One call: prune a trained (or a fresh) model, now."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from secateurs.core.masks import Masks
from secateurs.errors import BadInput
from secateurs.models import Left, Survey, unwrap
from secateurs.planning import Choices, GroupPlan, Plan, choose_weights, count, own_shares, target_sparsity
from secateurs.recipe import Recipe
from secateurs.registry import find_method
from secateurs.train.blockwise import BlockDone, Pruning, blockwise, goes_by_blocks, within_blocks
from secateurs.train.dense import Dense
from secateurs.train.losses import Loss, default_loss
from secateurs.train.ranking import rank
from secateurs.train.walk import Ranks
from secateurs.train.walk.state import digest

__all__ = ["Pruned", "check_total", "prune", "settled"]

Planned = TypeVar("Planned", Plan, GroupPlan, covariant=True)


@dataclass(frozen=True)
class Pruned(Generic[Planned]):
    """What :func:`prune` gives back.

    Attributes:
        model: pruned.
        plan: what was removed. Replaying it elsewhere sets the same entries to zero; values that a method has updated
            (SparseGPT) are in ``model`` alone.
        report: a row per layer and for the total; ``error``, where it is known, is a layer's squared output error on the
            calibration tokens as a share of its squared output.
        recipe: with the method's defaults filled in.
        left: parameters that were left alone, each with the reason.
        rare: experts that got few of the calibration tokens: (weight, expert, tokens).
    """

    model: nn.Module
    plan: Planned
    report: list[dict[str, object]]
    recipe: Recipe
    left: tuple[Left, ...] = ()
    rare: tuple[tuple[str, int, int], ...] = ()


def prune(
    model: nn.Module,
    method: str | Recipe | GroupPlan = "magnitude",
    *,
    example: Any = None,
    calibration: Iterable[Any] | None = None,
    loss: Loss | None = None,
    inplace: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    blocks: str | Sequence[str] = (),
    only_blocks: str | None = None,
    propagate: str = "pruned",
    state: str | Path | None = None,
    budget: int | None = None,
    scratch: str | Path | None = None,
    compute: str | None = None,
    progress: Callable[[BlockDone], None] | None = None,
    distributed: bool = False,
    **settings: Any,
) -> Pruned[Any]:
    """Prune ``model`` once by ``method``; the input is not changed unless ``inplace``.

    ``settings`` are the fields of :class:`secateurs.Recipe`. Frozen weights are pruned too.

    With ``structures=["heads", "neurons"]``, or a structure in the place of the method (``"channels"``), tensors become
    smaller: the model is traced on ``example``, cut, and verified to compute what the dense one does with the removed indices
    set to zero; the result is a :class:`secateurs.PrunedGroups`. A :class:`secateurs.GroupPlan` in the place of the method is
    carried out again.

    Methods that need calibration go through the model block by block (see :func:`secateurs.train.walk.walk`): what lies
    outside the blocks, as embeddings and the output layer do, is left alone, and the amount counts the weights inside.

    Args:
        example: inputs to trace the model with, where structures are removed: a tensor, a tuple of arguments, or a mapping.
        calibration: batches: mappings (``model(**batch)``; padding is told by ``attention_mask``), tensors of token ids or of
            inputs, ``(inputs, labels)`` pairs. For criteria that need gradients, and for methods that need calibration.
        loss: ``loss(model, batch)``; by default cross-entropy on pairs, the model's own ``.loss`` on mappings, and text
            predicts itself (:func:`secateurs.train.losses.default_loss`).
        optimizer: of ``model``; where structures are removed its state is cut like the parameters, and it goes on with the
            result's.
        blocks: names of the lists of blocks, or of blocks, where they are not found.
        only_blocks: a range of blocks, ``"4:20"`` for numbers 4 to 19; the others are run through and stay dense.
        propagate: ``"pruned"`` feeds a block by its pruned predecessors, ``"dense"`` by the dense ones.
        state: a folder for finished blocks: a run that was killed goes on from it and ends with the same bits. It is not
            continued where the calibration, a setting, the rest of the model or what ``loss`` has found is not the same.
        budget: bytes of activations kept in memory; the rest goes to files in ``scratch``.
        compute: ``"bfloat16"`` (or ``"float16"``): run the batches in it where the model is in float32, which is faster where
            the processor can; the weights and the statistics' sums stay what they are.
        progress: called after every block.
        distributed: every process of ``torch.distributed``'s default group makes this same call, with the same model, settings
            and list of all batches. Process k of K measures batches ``[k n / K, (k + 1) n / K)`` of n and prunes its part of
            each block; sums are merged in the order of the processes, and all end with the same bits, those of one process to
            rounding. An error in one is raised in all. The first process alone uses ``state``, where K counts as a setting.

    Raises:
        BadInput: the method needs a training loop, or whatever else cannot work, before anything is changed. In a walk with
            ``inplace``, the blocks before one that cannot be pruned are pruned.
        NotFinite: a weight, a score or an activation is NaN or infinite.
        NotPositiveDefinite: the Hessian of a layer has no factor (SparseGPT); the message says what to try.
    """
    if isinstance(model, (str, Path)):
        raise BadInput(f"{str(model)!r} is a path, and this prunes a module: open it first, or give an ONNX file to "
                       "secateurs.prune_onnx")  # fmt: skip
    walking = {"blocks": blocks, "only_blocks": only_blocks, "state": state, "budget": budget, "scratch": scratch,
               "progress": progress, "compute": compute, "distributed": distributed,
               "propagate": None if propagate == "pruned" else propagate}  # fmt: skip
    if isinstance(method, GroupPlan) or Recipe.of(method, settings).structures:
        return _structures(model, method, settings, walking, example=example, calibration=calibration, loss=loss,
                           inplace=inplace, optimizer=optimizer)  # fmt: skip
    if optimizer is not None:
        raise BadInput("optimizer= is cut with tensors that become smaller; masks leave every tensor as it is, so leave it out")
    if example is not None:
        raise BadInput(f"example= is for structures, of which {method!r} names none: add one, as in structures=['channels']")
    recipe, choices = settled(method, settings)
    walks = goes_by_blocks(choices)
    if walks and calibration is None:
        raise BadInput(f"{recipe.method!r} prunes by what calibration data shows: pass calibration=, an iterable of batches "
                       "(token ids, mappings with input_ids, or (inputs, labels) pairs)")  # fmt: skip
    if not walks and (blocks or only_blocks or compute or state is not None):
        raise BadInput("blocks=, only_blocks=, compute= and state= are for methods that go block by block, which "
                       f"{recipe.method!r} does not; include= and exclude= choose what is pruned")  # fmt: skip
    if walks:
        walk = {"blocks": blocks, "propagate": propagate, "budget": budget, "scratch": scratch, "compute": compute}
        target = model if inplace else copy.deepcopy(model)
        with Ranks.of(distributed) as ranks:
            return _block_by_block(target, recipe, choices, calibration, loss or default_loss, only_blocks, state, progress,
                                   walk, ranks)  # fmt: skip
    chosen = choose_weights(unwrap(model), recipe, trained=False)
    sparsity, own = target_sparsity(recipe, choices, chosen), own_shares(recipe, chosen.weights)
    target = model if inplace else copy.deepcopy(model)
    inner = unwrap(target)
    chosen = chosen if inplace else choose_weights(inner, recipe, trained=False)
    batches = calibration
    if calibration is not None and len(choices.method.path(0.0, sparsity)) > 1:  # they are gone through again and again
        batches = Dense(inner, chosen, calibration, loss or default_loss, recipe.seed).batches
    with Ranks.of(distributed) as ranks:
        known = functools.partial(_known, inner, chosen, batches, loss or default_loss, recipe.seed, ranks)
        dense = {w.name: torch.ones_like(w.parameter, dtype=torch.bool) for w in chosen.weights}
        masks = rank(chosen.weights, choices, sparsity, own, known, dense)
        masks = ranks.union(masks if ranks.first else {})
    plan = Plan.of(chosen.weights, masks, choices.structure.name, recipe.to_dict())
    plan.replay(target, undoable=False)
    return Pruned(target, plan, plan.masks.report(), recipe, chosen.left)


def _known(model: nn.Module, chosen: Survey, batches: Iterable[Any] | None, loss: Loss, seed: int, ranks: Ranks,
           masks: Masks) -> Dense:  # fmt: skip
    """The statistics of a model of which ``masks`` are in force."""
    return Dense(model, chosen, batches, loss, seed, ranks=ranks, masks=masks)


def _structures(model: nn.Module, method: str | Recipe | GroupPlan, settings: Mapping[str, Any], walking: Mapping[str, Any],
                *, example: Any, inplace: bool, **data: Any) -> Pruned[GroupPlan]:  # fmt: skip
    """Hand over to the structured path; what belongs to the other one is refused."""
    from secateurs.train.structured import prune_groups, replay  # here: it builds on this file

    odd = next((name for name, value in walking.items() if value), None)
    if odd:
        raise BadInput(f"{odd}= is for methods that go block by block, not for removing structures")
    if isinstance(method, GroupPlan):
        if settings:
            raise BadInput(f"a plan says everything: leave out {', '.join(settings)}")
        return replay(model, method, example=example, inplace=inplace, optimizer=data["optimizer"])
    return prune_groups(model, Recipe.of(method, settings), example=example, inplace=inplace, **data)


def settled(method: str | Recipe, settings: Mapping[str, Any]) -> tuple[Recipe, Choices]:
    """The recipe of one shot with the method's defaults filled in, and what its words stand for.

    Raises:
        BadInput: unknown or unfit words, or a method that needs a training loop.
    """
    said = Recipe.of(method, settings)
    known = find_method(said.method)(said.options)
    if "training" in known.needs:
        raise BadInput(f"{said.method!r} prunes while a model trains: use secateurs.Pruner(model, {said.method!r}, ...) in "
                       "the training loop")  # fmt: skip
    recipe = said.with_defaults(known.defaults)
    return recipe, Choices.of(recipe, known)


def _block_by_block(
    model: nn.Module, recipe: Recipe, choices: Choices, calibration: Iterable[Any] | None, loss: Loss,
    only: str | None, state: str | Path | None, progress: Callable[[BlockDone], None] | None, walking: dict[str, Any],
    ranks: Ranks,
) -> Pruned:  # fmt: skip
    """Prune ``model`` itself, with how much goes from where settled on the dense model."""
    inner = unwrap(model)
    chosen = within_blocks(inner, choose_weights(inner, recipe, trained=False), walking["blocks"], only)
    sparsity, own = target_sparsity(recipe, choices, chosen), own_shares(recipe, chosen.weights)
    dense = Dense(inner, chosen, calibration, loss, recipe.seed, walking, ranks)
    counts = ranks.of_first(count(chosen.weights, choices, sparsity, own, dense))
    whole = sorted(choices.criterion.needs - {"noise", "norms"})
    measured = digest(dense(weight)[name] for weight in chosen.weights for name in whole)  # while the model is dense
    given = {**recipe.to_dict(), "counts": counts, "gradients": measured}
    done = blockwise(inner, chosen, choices, counts, dense, dense.batches, state=state, progress=progress,
                     settings=given, seed=recipe.seed, ranks=ranks, **walking)  # fmt: skip
    check_total(recipe, done)
    pruned = [weight for weight in chosen.weights if weight.name in done.masks]
    plan = Plan.of(pruned, done.masks, choices.structure.name, recipe.to_dict())
    report = [row | done.facts.get(str(row["name"]), {}) for row in plan.masks.report()]
    return Pruned(model, plan, report, recipe, (*chosen.left, *done.left), tuple(done.rare))


def check_total(recipe: Recipe, done: Pruning) -> None:
    """A total was promised over all chosen weights, so none of them may be left."""
    if done.left and (recipe.total_sparsity is not None or isinstance(recipe.keep, int)):
        one: Left = done.left[0]
        raise BadInput(f"the total that was asked for cannot be met: {one.name!r} is left alone ({one.reason}); exclude it, or "
                       "calibrate with more data")  # fmt: skip
