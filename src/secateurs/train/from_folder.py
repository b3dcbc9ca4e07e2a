"""Prune a Hugging Face folder into another one within a memory budget: its weights are never in memory as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.errors import BadInput
from secateurs.formats.folder import check_target, full_disk_told, replacing
from secateurs.formats.manifest import to_json
from secateurs.measure.process import MemoryUse, PeakAnonymous
from secateurs.models import Left, Survey, Weight
from secateurs.planning import Choices, Plan, choose_weights, count, own_shares, target_sparsity
from secateurs.recipe import Recipe
from secateurs.statistics import single_samples
from secateurs.train.blockwise import BlockDone, Pruning, blockwise, goes_by_blocks, within_blocks
from secateurs.train.budget import as_bytes, for_activations
from secateurs.train.dense import Lazy
from secateurs.train.losses import Loss, default_loss
from secateurs.train.once import check_total, settled
from secateurs.train.one_by_one import one_by_one, stops_of
from secateurs.train.walk import Streamed, assemble, find_route, open_folder
from secateurs.train.walk.backward import gradient_sums_by_block
from secateurs.train.walk.sums import SavedSums
from secateurs.train.walk.walking import Progress

__all__ = ["PrunedFolder", "prune_folder"]

_GRADIENTS = ".gradients"  # among the finished blocks: hidden, so that it is taken for none
#: By the name of what a criterion needs, the sum of gradients it is made of.
_SUMS = {"gradient-magnitude": "absolute", "gradient-magnitude-l2": "squared"}


@dataclass(frozen=True)
class PrunedFolder:
    """What :func:`prune_folder` gives back; ``memory`` says whether the budget was kept. The rest is as in ``Pruned``."""

    path: Path
    plan: Plan
    report: list[dict[str, object]]
    recipe: Recipe
    left: tuple[Left, ...]
    rare: tuple[tuple[str, int, int], ...]
    memory: MemoryUse


def prune_folder(
    folder: str | Path,
    method: str | Recipe = "magnitude",
    *,
    out: str | Path,
    memory: str | int,
    calibration: Iterable[Any] | None = None,
    blocks: str | Sequence[str] = (),
    only_blocks: str | None = None,
    propagate: str = "pruned",
    state: str | Path | None = None,
    scratch: str | Path | None = None,
    overwrite: bool = False,
    compute: str | None = None,
    loss: Loss | None = None,
    progress: Callable[[BlockDone], None] | None = None,
    gradients: Progress | None = None,
    **settings: Any,
) -> PrunedFolder:
    """Prune the model in ``folder`` and write it to ``out``, as shards that ``from_pretrained`` opens.

    One block is in memory at a time, with the layers outside the blocks that calibration runs through; finished blocks are
    written at once. The bits are those that pruning in memory gives. A method that needs the magnitudes of gradients (GBLM)
    goes through the blocks forward and backward first, and keeps their sums in files of four bytes per weight; those are the
    sums of a backward pass in memory up to rounding. Arguments not named here are those of :func:`secateurs.prune`.

    Args:
        out: a new folder; the plan, the recipe, the report and the tokenizer's files lie beside the weights.
        memory: bytes this process may hold (a number, or text as ``"2GB"``), pages of mapped files not counted. It is measured:
            see ``memory`` of the result. What blocks leave of it, halved, is for activations; the rest of those goes to
            files in ``scratch``, by default beside ``out``.
        state: a folder for finished blocks and sums; by default ``<out>.partial``, removed when ``out`` is written.
        gradients: called after every block of the backward pass: (blocks done, blocks in all, name).

    Raises:
        BadInput: not a Hugging Face folder, a method or an allocation that needs the whole dense model, a budget that cannot
            be kept, or whatever else cannot work, before anything is done.
        NotFinite, NotPositiveDefinite: as :func:`secateurs.prune`; what is finished stays in ``state``.
    """
    budget = as_bytes(memory)
    target = Path(out).expanduser().resolve()
    check_target(target, overwrite)
    keep = Path(state) if state is not None else target.with_name(f"{target.name}.partial")
    with PeakAnonymous() as watched, full_disk_told(keep):
        recipe, choices = settled(method, settings)
        walks = _check(recipe, choices, calibration is not None, bool(blocks or only_blocks or compute))
        source = open_folder(folder)
        source.layout.check_reversible()
        chosen = choose_weights(source.model, recipe, trained=False, hollow=True)
        if walks:
            chosen = within_blocks(source.model, chosen, blocks, only_blocks)
        sparsity, own = target_sparsity(recipe, choices, chosen), own_shares(recipe, chosen.weights)
        counts = count(chosen.weights, choices, sparsity, own, _whole_model)
        share = _for_activations(source, chosen, choices, budget, blocks if walks else None)
        if walks:
            given = list(calibration or ())
            target.parent.mkdir(parents=True, exist_ok=True)
            walking: dict[str, Any] = {"blocks": blocks, "budget": share, "scratch": scratch or target.parent,
                                       "seed": recipe.seed, "source": source}  # fmt: skip
            supply = _Supply(source, chosen, choices, keep / _GRADIENTS, walking)
            supply.sum_gradients(given, loss or default_loss, gradients)
            done = blockwise(source.model, chosen, choices, counts, supply, given, state=keep, progress=progress,
                             settings=recipe.to_dict(), propagate=propagate, compute=compute, **walking)  # fmt: skip
        else:
            done = one_by_one(source.model, chosen, choices, counts, source, keep, recipe.to_dict(), progress)
        check_total(recipe, done)
        plan, report = _planned(chosen, choices, recipe, done)
        with replacing(target, overwrite) as fresh:
            _write(source, keep, fresh, plan, recipe, report, most=max(budget // 32, 2**20))
    shutil.rmtree(keep if state is None else keep / _GRADIENTS, ignore_errors=True)
    return PrunedFolder(target, plan, report, recipe, (*chosen.left, *done.left), tuple(done.rare),
                        MemoryUse(budget, watched.peak))  # fmt: skip


def _check(recipe: Recipe, choices: Choices, data: bool, named: bool) -> bool:
    """Refuse what needs the whole dense model, or data that is not there; whether the method goes block by block."""
    walks = goes_by_blocks(choices)
    whole = sorted(choices.criterion.needs - {"noise", "norms", *(_SUMS if walks else ())})
    if whole:
        raise BadInput(f"{recipe.method!r} with criterion={choices.criterion.name!r} needs the {whole[0]} of the whole dense "
                       "model, which is never in memory under a memory budget: set none, or use magnitude, wanda, gblm or "
                       "sparsegpt")  # fmt: skip
    if walks and not data:
        raise BadInput(f"{recipe.method!r} prunes by what calibration data shows: pass calibration=, an iterable of batches")
    if not walks and named:
        raise BadInput("blocks=, only_blocks= and compute= are for methods that go block by block, which "
                       f"{recipe.method!r} does not; include= and exclude= choose what is pruned")  # fmt: skip
    return walks


class _Supply:
    """What is known of a weight besides the norms: sums of gradients where they were taken, and of the whole model nothing."""

    def __init__(self, source: Streamed, chosen: Survey, choices: Choices, folder: Path, walking: Mapping[str, Any]):
        self._source, self._chosen, self._folder, self._walking = source, chosen, folder, walking
        self._wanted = sorted(choices.criterion.needs & _SUMS.keys())
        self._sums: SavedSums | None = None

    def sum_gradients(self, batches: Sequence[Any], loss: Loss, progress: Progress | None) -> None:
        """Take the sums that the criterion needs, unless an earlier run has."""
        for name in self._wanted:
            self._sums = gradient_sums_by_block(self._source.model, self._chosen, single_samples(batches), loss, _SUMS[name],
                                                self._folder, progress=progress, **self._walking)  # fmt: skip

    def __call__(self, weight: Weight) -> Lazy:
        """For :func:`secateurs.train.blockwise.blockwise`."""
        sums = self._sums
        if sums is None:
            return _whole_model(weight)
        found = {"gradient-magnitude": lambda: sums.load(weight), "gradient-magnitude-l2": lambda: sums.load(weight).sqrt()}
        return Lazy({"slope": _refuse, **{name: found[name] for name in self._wanted}})


def _whole_model(weight: Weight) -> Lazy:
    """What is known of a weight before the walk: nothing, and asking for it says so."""
    return Lazy({"slope": _refuse})


def _refuse() -> Tensor:
    raise BadInput("an allocation by statistics of the whole dense model, which is never in memory under a memory budget: "
                   "use uniform, er, erk or shares of your own, or set no budget")  # fmt: skip


def _for_activations(
    source: Streamed, chosen: Survey, choices: Choices, budget: int, blocks: str | Sequence[str] | None
) -> int:
    """Bytes of activations to keep in memory, beside what the method measures of a block."""
    model = source.model
    if blocks is None:
        return for_activations(model, list(stops_of(model, chosen)), budget)
    stops = find_route(model, chosen, blocks).stops
    beside = 0
    if "gram" in choices.method.measures:  # and a factor of it
        beside = max(w.shape[w.layout.in_dim] for w in chosen.weights) ** 2 * 8
    if choices.criterion.needs & _SUMS.keys():
        beside = max(beside, 4 * max(sum(w.size for w in stop.weights) for stop in stops))
    return for_activations(model, [stop.name for stop in stops], budget, beside)


def _planned(chosen: Survey, choices: Choices, recipe: Recipe, done: Pruning) -> tuple[Plan, list[dict[str, object]]]:
    pruned = [weight for weight in chosen.weights if weight.name in done.masks]
    plan = Plan.of(pruned, done.masks, choices.structure.name, recipe.to_dict())
    return plan, [row | done.facts.get(str(row["name"]), {}) for row in plan.masks.report()]


def _write(
    source: Streamed, state: Path, folder: Path, plan: Plan, recipe: Recipe, report: list[dict[str, object]], most: int
) -> None:
    """Everything into the ``folder``, the files those of :func:`secateurs.save`."""
    assemble(source, state, folder, most)
    plan.save(folder)
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    for name, value in (("recipe", recipe), ("report", report)):
        (folder / f"{name}.json").write_text(to_json(value, name), encoding="utf-8")
