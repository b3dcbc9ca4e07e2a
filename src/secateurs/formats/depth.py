"""Blocks that leave a list of repeated layers: those that stay move up, and the numbers that modules carry follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from secateurs.errors import BadInput

__all__ = ["keep_blocks", "new_name"]

#: Attributes by which a block, or an attention layer in it, knows its place, in a cache of keys and values for instance.
_PLACES = ("layer_idx", "layer_id", "layer_index", "layer_number", "block_idx")


def keep_blocks(model: nn.Module, path: str, kept: Sequence[int]) -> None:
    """Leave only the blocks ``kept`` (ascending) in the list ``path`` of ``model``, in place; they are counted from 0 again.

    Raises:
        BadInput: ``path`` is no list of so many blocks; nothing is changed.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    blocks = modules.get(path)
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)) or list(blocks._modules) != [str(i) for i in range(len(blocks))]:
        raise BadInput(f"{path!r} is no ModuleList or Sequential whose blocks are counted from 0")
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= len(blocks):
        raise BadInput(f"blocks {list(kept)} of {path!r}, which has {len(blocks)}: name some of them, each once, ascending")
    left = [blocks[i] for i in kept]
    for i in range(len(blocks)):
        del blocks._modules[str(i)]
    for new, (old, block) in enumerate(zip(kept, left, strict=True)):
        blocks.add_module(str(new), block)
        _renumber(block, old, new)


def new_name(name: str, keeps: Mapping[str, Sequence[int]]) -> str | None:
    """What a tensor or module ``name`` is called once only the blocks ``keeps`` of each list are left; None if it went."""
    for path, kept in keeps.items():
        prefix = f"{path}." if path else ""
        key, dot, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and key.isdecimal():
            return f"{prefix}{list(kept).index(int(key))}{dot}{rest}" if int(key) in kept else None
    return name


def _renumber(block: nn.Module, old: int, new: int) -> None:
    for module in block.modules():
        for attribute in _PLACES:
            if type(vars(module).get(attribute)) is int and vars(module)[attribute] == old:
                setattr(module, attribute, new)
