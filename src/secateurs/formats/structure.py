"""What became smaller: the shapes and sizes in which a shrunk model differs from what its factory builds.

The record is data: names, shapes and numbers. Loading puts numbers over numbers and tensors over tensors, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.formats.depth import keep_blocks, new_name

__all__ = [
    "adopt", "built_on_meta", "loose_buffers", "named_tensors", "note_blocks", "note_changes", "rebuild", "record_of",
    "structure_problem",
]  # fmt: skip

_RECORD = "_secateurs_structure"


def note_changes(dense: nn.Module, smaller: nn.Module) -> None:
    """Remember on ``smaller`` how it differs from ``dense``, so that ``save`` and ``load`` can build it again.

    Only numbers and tuples or lists of them are remembered. Where ``dense`` was shrunk itself, what counts is the first model.
    """
    before = record_of(dense) or {"attributes": {}, "dense_shapes": {}}
    attributes = {path: dict(values) for path, values in before["attributes"].items()}
    old = dict(dense.named_modules(remove_duplicate=False))
    for path, module in smaller.named_modules(remove_duplicate=False):
        changed = _changed(old[path], module)
        if changed:
            attributes.setdefault(path, {}).update(changed)
    shapes = dict(before["dense_shapes"])
    mine = dict(named_tensors(smaller))
    for name, value in named_tensors(dense):
        if name in mine and mine[name].shape != value.shape:
            shapes.setdefault(name, list(value.shape))
    vars(smaller)[_RECORD] = {**before, "attributes": attributes, "dense_shapes": shapes}


def note_blocks(dense: nn.Module, smaller: nn.Module, keeps: Mapping[str, Sequence[int]], said: bool) -> None:
    """Remember on ``smaller`` that only the blocks ``keeps`` of each of ``dense``'s lists are left.

    ``said`` is whether the model's own configuration says so already; then only what was remembered before is kept up.
    """
    before = record_of(dense)
    if before is None and said:
        return
    record = {"attributes": {}, "dense_shapes": {}, **(before or {})}
    for part in ("attributes", "dense_shapes"):
        moved = {new_name(name, keeps): value for name, value in record[part].items()}
        record[part] = {name: value for name, value in moved.items() if name is not None}
    if not said:
        blocks = dict(record.get("blocks", {}))
        blocks.update({path: [blocks[path][i] if path in blocks else i for i in kept] for path, kept in keeps.items()})
        record["blocks"] = blocks
    vars(smaller)[_RECORD] = record


def record_of(model: nn.Module) -> dict[str, Any] | None:
    """What :func:`note_changes` remembered, or None."""
    return vars(model).get(_RECORD)


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer under every name it has, in order."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _changed(old: nn.Module, new: nn.Module) -> dict[str, Any]:
    was = vars(old)
    return {
        name: list(value) if isinstance(value, (tuple, list)) else value
        for name, value in vars(new).items()
        if name in was and not name.startswith("_") and _is_size(value) and _is_size(was[name]) and value != was[name]
    }


def _is_size(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(type(item) is int for item in value)
    return value is None or type(value) in (int, float)


def structure_problem(structure: Any) -> str | None:
    """The first thing in a manifest's ``structure`` that has not the promised type, or None."""
    if not isinstance(structure, dict) or {"attributes", "dense_shapes"} - structure.keys():
        return "'structure' is not a table of attributes and dense_shapes"
    for path, values in structure["attributes"].items():
        if not isinstance(values, dict) or not all(n.isidentifier() and _is_size(v) for n, v in values.items()):
            return f"the attributes of module {path!r} are not numbers by name"
    for name, sizes in structure["dense_shapes"].items():
        if not isinstance(sizes, list) or not all(type(n) is int and n >= 0 for n in sizes):
            return f"the dense shape of {name!r} is not a list of non-negative integers"
    for path, kept in structure.get("blocks", {}).items():
        if not isinstance(kept, list) or not kept or not all(type(n) is int and n >= 0 for n in kept):
            return f"the blocks left of {path!r} are not a list of numbers"
    return None


def rebuild(factory: Callable[[], nn.Module], structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network of ``factory`` with the sizes of ``structure`` and the values of ``tensors``.

    It is built on the meta device, so that the dense network never takes memory; a factory that cannot do so (it computes with
    values) is called again on the CPU.

    Raises:
        BadInput: the factory builds another network than the one that was shrunk.
    """
    model, blocks = built_on_meta(factory), structure.get("blocks", {})
    if not isinstance(model, nn.Module) or _left_on_meta(_with_blocks(model, blocks), tensors):
        model = factory()
        if not isinstance(model, nn.Module):
            raise BadInput(f"the factory returned {type(model).__name__}: it must return a torch.nn.Module")
        _with_blocks(model, blocks)
    _check(model, structure, tensors)
    _set_attributes(model, structure["attributes"])
    adopt(model, tensors)
    vars(model)[_RECORD] = {key: structure[key] for key in ("attributes", "dense_shapes", "blocks") if key in structure}
    return model


def _with_blocks(model: nn.Module, blocks: Mapping[str, Sequence[int]]) -> nn.Module:
    for path, kept in blocks.items():
        try:
            keep_blocks(model, path, kept)
        except BadInput as error:
            raise BadInput(f"the factory builds another network: {error}") from error
    return model


def built_on_meta(factory: Callable[[], nn.Module]) -> nn.Module | None:
    """What ``factory`` builds on the meta device; None where it cannot."""
    try:
        with torch.device("meta"):
            return factory()
    except Exception:  # a user's code, which may compute with values: on the CPU it gets another call, where errors show
        return None


def _left_on_meta(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether something has no value once ``tensors`` are in: a buffer or tensor attribute no file holds."""
    lacking = [name for name, value in named_tensors(model) if name not in tensors and value.is_meta]
    loose = [name for module in model.modules() for name, value in vars(module).items() if isinstance(value, Tensor)]
    return bool(lacking or loose)


def _check(model: nn.Module, structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    own, persistent = dict(named_tensors(model)), model.state_dict().keys()
    lacking = [name for name in persistent if name not in tensors] + [name for name in tensors if name not in own]
    if lacking:
        raise BadInput(f"the factory builds another network: {lacking[0]!r} and {len(lacking) - 1} more are in only one of "
                       "network and folder")  # fmt: skip
    for name, stored in tensors.items():
        wanted = structure["dense_shapes"].get(name, list(stored.shape))
        if list(own[name].shape) != wanted or own[name].dtype != stored.dtype:
            raise BadInput(f"the factory's {name!r} is {own[name].dtype} {tuple(own[name].shape)}, and in the model that was "
                           f"shrunk it was {stored.dtype} {tuple(wanted)}: build the network as it was before")  # fmt: skip


def _set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, Any]]) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, values in attributes.items():
        for name, value in values.items():
            own: Any = vars(modules[path]) if path in modules else {}
            if name not in own or not _is_size(own[name]):
                raise BadInput(f"the factory builds another network: {path or 'the model'!r} has no size {name!r}")
            own[name] = type(own[name])(value) if isinstance(value, list) else value  # numbers over numbers: no code runs


def adopt(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make ``tensors`` the parameters and buffers of ``model``, whatever shapes it had; what was tied in it stays tied."""
    fresh: dict[int, Any] = {}
    for name, old in named_tensors(model):
        path, _, attribute = name.rpartition(".")
        owner = model.get_submodule(path)
        if id(old) not in fresh and name in tensors:
            value = tensors[name]
            fresh[id(old)] = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
        if id(old) in fresh:
            setattr(owner, attribute, fresh[id(old)])
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def loose_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers a state dict leaves out, of a model that was shrunk: their sizes are no longer what a factory makes."""
    if record_of(model) is None:
        return {}
    persistent = model.state_dict().keys()
    return {name: value for name, value in model.named_buffers(remove_duplicate=False) if name not in persistent}
