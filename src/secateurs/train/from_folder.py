"""Prune a Hugging Face folder into another one within a memory budget: its weights are never in memory as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.formats.folder import check_target, replacing
from secateurs.formats.manifest import to_json
from secateurs.measure.process import MemoryUse, PeakAnonymous, anonymous_bytes, parse_bytes
from secateurs.models import Left, Survey, Weight
from secateurs.planning import Choices, Plan, choose_weights, count, own_shares, target_sparsity
from secateurs.recipe import Recipe
from secateurs.train.blockwise import BlockDone, Pruning, blockwise, goes_by_blocks, within_blocks
from secateurs.train.dense import Lazy
from secateurs.train.once import check_total, settled
from secateurs.train.one_by_one import one_by_one, stops_of
from secateurs.train.walk import Shards, Streamed, assemble, find_route, open_hollow

__all__ = ["PrunedFolder", "prune_folder"]


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
    progress: Callable[[BlockDone], None] | None = None,
    **settings: Any,
) -> PrunedFolder:
    """Prune the model in ``folder`` and write it to ``out``, as shards that ``from_pretrained`` opens.

    One block is in memory at a time, with the layers outside the blocks that calibration runs through; finished blocks are
    written at once. The bits are those that pruning in memory gives. Arguments not named here are those of
    :func:`secateurs.prune`.

    Args:
        out: a new folder; the plan, the recipe, the report and the tokenizer's files lie beside the weights.
        memory: bytes this process may hold (a number, or text as ``"2GB"``), pages of mapped files not counted. It is measured:
            see ``memory`` of the result. What blocks leave of it, halved, is for activations; the rest of those goes to
            files in ``scratch``, by default beside ``out``.
        state: a folder for finished blocks; by default ``<out>.partial``, removed when ``out`` is written.

    Raises:
        BadInput: not a Hugging Face folder, a method or an allocation that needs the whole dense model, a budget that cannot
            be kept, or whatever else cannot work, before anything is done.
        NotFinite, NotPositiveDefinite: as :func:`secateurs.prune`; what is finished stays in ``state``.
    """
    budget = parse_bytes(memory) if isinstance(memory, str) else memory
    target = Path(out).expanduser().resolve()
    check_target(target, overwrite)
    keep = Path(state) if state is not None else target.with_name(f"{target.name}.partial")
    with PeakAnonymous() as watched:
        recipe, choices = settled(method, settings)
        walks = _check(recipe, choices, calibration is not None, bool(blocks or only_blocks))
        source, chosen = _opened(Path(folder).expanduser(), recipe)
        if walks:
            chosen = within_blocks(source.model, chosen, blocks, only_blocks)
        sparsity, own = target_sparsity(recipe, choices, chosen), own_shares(recipe, chosen.weights)
        counts = count(chosen.weights, choices, sparsity, own, _whole_model)
        share = _for_activations(source, chosen, choices, budget, blocks if walks else None)
        if walks:
            given = list(calibration or ())
            target.parent.mkdir(parents=True, exist_ok=True)
            walking = {"blocks": blocks, "propagate": propagate, "budget": share, "scratch": scratch or target.parent}
            done = blockwise(source.model, chosen, choices, counts, _whole_model, given, state=keep, progress=progress,
                             settings=recipe.to_dict(), seed=recipe.seed, source=source, **walking)  # fmt: skip
        else:
            done = one_by_one(source.model, chosen, choices, counts, source, keep, recipe.to_dict(), progress)
        check_total(recipe, done)
        plan, report = _planned(chosen, choices, recipe, done)
        with replacing(target, overwrite) as fresh:
            _write(source, keep, fresh, plan, recipe, report, most=max(budget // 32, 2**20))
    if state is None:
        shutil.rmtree(keep, ignore_errors=True)
    return PrunedFolder(target, plan, report, recipe, (*chosen.left, *done.left), tuple(done.rare),
                        MemoryUse(budget, watched.peak))  # fmt: skip


def _check(recipe: Recipe, choices: Choices, data: bool, named: bool) -> bool:
    """Refuse what needs the whole dense model, or data that is not there; whether the method goes block by block."""
    whole = sorted(choices.criterion.needs - {"noise", "norms"})
    if whole:
        raise BadInput(f"{recipe.method!r} with criterion={choices.criterion.name!r} needs the {whole[0]} of the whole dense "
                       "model, which is never in memory under a memory budget: set none, or use magnitude, wanda or "
                       "sparsegpt")  # fmt: skip
    walks = goes_by_blocks(choices)
    if walks and not data:
        raise BadInput(f"{recipe.method!r} prunes by what calibration data shows: pass calibration=, an iterable of batches")
    if not walks and named:
        raise BadInput("blocks= and only_blocks= are for methods that go block by block, which "
                       f"{recipe.method!r} does not; include= and exclude= choose what is pruned")  # fmt: skip
    return walks


def _opened(folder: Path, recipe: Recipe) -> tuple[Streamed, Survey]:
    if not (folder / "config.json").is_file():
        raise BadInput(f"{str(folder)!r} is no Hugging Face folder (it has no config.json): a memory budget needs one")
    source = Streamed(open_hollow(folder), Shards(folder))
    return source, choose_weights(source.model, recipe, trained=False, hollow=True)


def _whole_model(weight: Weight) -> Mapping[str, Tensor]:
    """What is known of a weight before the walk: nothing, and asking for it says so."""

    def refuse() -> Tensor:
        raise BadInput("an allocation by statistics of the whole dense model, which is never in memory under a memory budget: "
                       "use uniform, er, erk or shares of your own, or set no budget")  # fmt: skip

    return Lazy({"slope": refuse})


def _for_activations(
    source: Streamed, chosen: Survey, choices: Choices, budget: int, blocks: str | Sequence[str] | None
) -> int:
    """Bytes of activations to keep in memory: half of what the process, the layers outside and a few blocks leave.

    Raises:
        BadInput: not even the process as it is and the largest block fit into the budget.
    """
    model = source.model
    stops = list(stops_of(model, chosen)) if blocks is None else [s.name for s in find_route(model, chosen, blocks).stops]
    largest = max(_bytes(model.get_submodule(name)) for name in stops)
    now = anonymous_bytes() or 0
    if now + largest > budget:
        raise BadInput(f"memory={budget} bytes cannot be kept: this process has {now} already, and the largest block is "
                       f"{largest}; give more than {now + largest}")  # fmt: skip
    inside = sum(_bytes(model.get_submodule(name)) for name in stops)
    gram = max(w.shape[w.layout.in_dim] for w in chosen.weights) ** 2 * 8 if "gram" in choices.method.measures else 0
    return max(0, (budget - now - 3 * largest - max(0, _bytes(model) - inside) - gram) // 2)


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


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
