"""A shallower model: whole blocks leave their list, the rest is counted anew, and a configuration says so."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from secateurs.apply.configs import build, move
from secateurs.apply.proof import batches, stretched
from secateurs.apply.running import double, largest_difference, outputs, resized, tolerance
from secateurs.apply.verify import Check, Verification
from secateurs.errors import BadInput
from secateurs.formats import is_pretrained, note_blocks
from secateurs.formats.depth import keep_blocks, new_name
from secateurs.planning.depth import BlockCosts, find_removable, skipping

__all__ = ["shorten", "verify_shortened"]

_COUNTS = re.compile("layer|depth|block")
_MOST = 3  # fields of a configuration that say the same number of layers

Field = tuple[tuple[str, ...], str, int | None]
"""Path of the sub-configuration, name, and index where the value is a list."""


def shorten(model: nn.Module, keeps: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``model`` with only the blocks ``keeps`` in its lists, ``{path: ascending numbers}``.

    Numbers of layers inside the blocks follow. A Hugging Face model is built anew from its configuration with fewer layers.

    Raises:
        BadInput: a list is not one of repeated blocks, or no field of the configuration says how many there are.
    """
    left = {path: keep.tolist() for path, keep in keeps.items()}
    smaller = copy.deepcopy(model)
    for path, kept in left.items():
        keep_blocks(smaller, path, kept)
    if is_pretrained(model):
        again = build(model, _said(model, left))
        assert again is not None  # its names and shapes were compared
        move(smaller, again)
        smaller = again
    note_blocks(model, smaller, left, said=is_pretrained(model))
    return smaller


def verify_shortened(dense: nn.Module, smaller: nn.Module, keeps: Mapping[str, Tensor], example: Any, *,
                     seed: int = 0) -> Verification:  # fmt: skip
    """Check ``smaller`` against ``dense`` with the other blocks skipped, which hand their input on; in float64.

    Compared are the outputs on ``example``, on random inputs of its shapes, of another batch and, where ``dense`` takes them,
    of other spatial or sequence sizes; and the number of parameters.

    Raises:
        BadInput: a block of ``dense`` cannot be skipped, or a model does not run on the example.
    """
    left = {path: keep.tolist() for path, keep in keeps.items()}
    twin, ours = double(dense), double(smaller)
    lists = find_removable(dense, example)
    _check(lists, left)
    skipped = [replace(blocks, modules=tuple(twin.get_submodule(blocks.name(n)) for n in range(len(blocks.modules))))
               for blocks in lists]  # fmt: skip
    promised, found = BlockCosts(dense, lists, example).parameters(left), sum(p.numel() for p in smaller.parameters())
    checks = [Check("exact counts", found == promised, f"{found} parameters"
                    + ("" if found == promised else f", promised {promised}"))]  # fmt: skip
    cases = [("the example", example), ("random inputs like it", resized(example, seed=seed))]
    with skipping(skipped, left):
        checks += [_compare(twin, ours, case, what) for what, case in cases]
        for others in (batches(example, seed), stretched(example, seed)):
            taken = next((case for case in others if _runs(twin, case[1])), None)
            checks += [] if taken is None else [_compare(twin, ours, taken[1], taken[0])]
    return Verification(tuple(checks))


def _compare(dense: nn.Module, smaller: nn.Module, case: Any, what: str) -> Check:
    theirs, fine = outputs(dense, case)
    ours, exact = outputs(smaller, case)
    gap, allowed = largest_difference(ours, theirs), tolerance(fine, exact)
    detail = f"largest difference {gap:.3g} of the largest output, {allowed:g} allowed"
    return Check(f"outputs equal the dense model's without these blocks on {what}", gap <= allowed, detail)


def _runs(dense: nn.Module, case: Any) -> bool:
    try:
        outputs(dense, case)
    except Exception:  # the user's code: sizes the dense model does not take prove nothing
        return False
    return True


def _check(lists: Sequence[Any], left: Mapping[str, Sequence[int]]) -> None:
    known = {blocks.path: blocks for blocks in lists}
    for path, kept in left.items():
        if path not in known:
            raise BadInput(f"{path!r} is no list of repeated blocks in this model; there is {', '.join(map(repr, known))}")
        gone = set(range(len(known[path].modules))) - set(kept)
        fixed = [known[path].name(n) for n in sorted(gone & known[path].fixed.keys())]
        if fixed:
            raise BadInput(f"{fixed[0]!r} cannot be left out of this model")


def _said(model: Any, left: Mapping[str, Sequence[int]]) -> Any:
    """The configuration under which ``model``'s class builds the names and shapes that are left."""
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters(remove_duplicate=False)}
    config = copy.deepcopy(model.config)
    for path, kept in left.items():
        old = len(model.get_submodule(path))
        shapes = {new: shape for name, shape in shapes.items() if (new := new_name(name, {path: kept})) is not None}
        fitting = (trial for trial in _trials(config, old, kept) if _shapes(build(model, trial)) == shapes)
        config = next(fitting, None)
        if config is None:
            raise BadInput(f"no field of the configuration of this {type(model).__name__} says how many blocks {path!r} has: "
                           "it would not load again")  # fmt: skip
    return config


def _shapes(model: nn.Module | None) -> dict[str, tuple[int, ...]]:
    return {} if model is None else {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}


def _trials(config: Any, old: int, kept: Sequence[int]) -> Iterator[Any]:
    """Copies of ``config``: fields that hold the number ``old`` changed, and lists of an entry per block cut to ``kept``."""
    fields = list(_fields(config, old, ()))
    lists = [field for field in fields if field[2] == -1]
    counts = [field for field in fields if field[2] != -1]
    for number in range(1, _MOST + 1):
        for chosen in itertools.combinations(counts, number):
            for cut in (lists, []) if lists else ([],):
                trial = copy.deepcopy(config)
                for field in (*chosen, *cut):
                    _set(trial, field, kept)
                yield trial


def _fields(config: Any, old: int, path: tuple[str, ...]) -> Iterator[Field]:
    """Where ``old`` stands, and (with -1 for an index) the lists of ``old`` entries."""
    for name, value in list(vars(config).items()):
        if name.startswith("_") and name != "_layer_types":
            continue
        if type(value) is int and value == old and _COUNTS.search(name):
            yield path, name, None
        elif isinstance(value, (list, tuple)):
            if len(value) == old:
                yield path, name, -1
            yield from ((path, name, place) for place, item in enumerate(value)
                        if type(item) is int and item == old and _COUNTS.search(name))  # fmt: skip
        elif hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _fields(value, old, (*path, name))


def _set(config: Any, field: Field, kept: Sequence[int]) -> None:
    path, name, place = field
    for part in path:
        config = getattr(config, part)
    if place is None:
        setattr(config, name, len(kept))
        return
    items = list(getattr(config, name))
    if place == -1:
        items = [items[n] for n in kept]
    else:
        items[place] = len(kept)
    setattr(config, name, type(getattr(config, name))(items))
