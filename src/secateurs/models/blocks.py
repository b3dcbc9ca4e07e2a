"""The blocks of a model: the lists of repeated layers that hold most of its weights, found by reading the module tree.

No architecture is known by name. A list is a ``ModuleList`` or ``Sequential`` of at least two children of one class (or of
classes that are all called ``...Layer`` or ``...Block``, as where attention and state-space layers alternate); of lists
inside lists the outermost counts. A decoder has one list, an encoder-decoder two, a model of several towers several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from secateurs.errors import BadInput, near
from secateurs.models.kinds import roles
from secateurs.models.tree import Survey, Weight
from secateurs.models.wrappers import unwrap

__all__ = ["BlockList", "describe_tree", "find_blocks"]

_LEAST_SHARE = 0.02  # of the prunable weights: smaller lists are heads and stems, not the body
_MIXED = ("Layer", "Block")


@dataclass(frozen=True)
class BlockList:
    """Modules that run one after the other, each on what the one before it gave.

    ``path`` names the list, ``""`` for the model itself. ``names`` are the qualified names of the blocks. Where they are not
    ``chained``, they are layers or blocks of their own, in any order and with any connections.
    """

    path: str
    names: tuple[str, ...]
    chained: bool = True


def find_blocks(model: nn.Module, found: Survey, blocks: str | Sequence[str] = ()) -> tuple[BlockList, ...]:
    """The lists of blocks, in the order of the model.

    Args:
        model: the model.
        found: its survey; of it, embeddings do not count.
        blocks: names of lists (``"model.layers"``) or of single modules, where the rule would find others.

    Where no lists hold most of the prunable weights, every prunable layer is a block of its own.

    Raises:
        BadInput: a name in ``blocks`` is no module of the model, or holds nothing to prune; its note is the module tree.
    """
    model = unwrap(model)
    weights = [weight for weight in found.weights if weight.kind != "embedding"]
    if blocks:
        return _named(model, weights, (blocks,) if isinstance(blocks, str) else tuple(blocks))
    total = sum(weight.size for weight in weights)
    lists = [item for item in _lists(model) if _held(weights, item.names) > _LEAST_SHARE * total]
    if 2 * sum(_held(weights, item.names) for item in lists) >= total > 0 and lists:
        return tuple(lists)
    paths = dict.fromkeys(weight.sites[0].path for weight in weights)
    return (BlockList("", tuple(paths), chained=False),) if paths else ()


def describe_tree(model: nn.Module, depth: int = 3) -> str:
    """The module tree as lines of text, ``name: Class``, lists of equal children as ``name: 12 x Class``."""
    return "\n".join(_tree(model, "", depth))


def _lists(module: nn.Module, path: str = "") -> Iterator[BlockList]:
    inside = [(f"{path}.{name}".removeprefix("."), child) for name, child in module.named_children()]
    if _repeats(module):
        yield BlockList(path, tuple(name for name, _ in inside))
    else:
        for name, child in inside:
            yield from _lists(child, name)


def _repeats(module: nn.Module) -> bool:
    """Whether ``module`` is a list of at least two children of one kind that hold something to prune."""
    if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < 2:
        return False
    classes = {type(child).__name__ for child in module}
    alike = len({type(child) for child in module}) == 1 or all(name.endswith(_MIXED) for name in classes)
    return alike and all(any(roles(inner) for inner in child.modules()) for child in module)


def _inside(weight: Weight, names: Sequence[str]) -> bool:
    return any(f"{site.path}.".startswith(f"{name}.") for site in weight.sites for name in names)


def _held(weights: Sequence[Weight], names: Sequence[str]) -> int:
    return sum(weight.size for weight in weights if _inside(weight, names))


def _named(model: nn.Module, weights: Sequence[Weight], names: Sequence[str]) -> tuple[BlockList, ...]:
    modules = dict(model.named_modules())
    lists: list[BlockList] = []
    single: list[str] = []
    for name in names:
        if name not in modules or not name:
            raise _refused(f"blocks={name!r} is no module of this model{near(name, modules)}", model)
        if not _held(weights, [name]):
            raise _refused(f"blocks={name!r} holds nothing to prune", model)
        module = modules[name]
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module):
            lists.append(BlockList(name, tuple(f"{name}.{key}" for key, _ in module.named_children())))
        else:
            single.append(name)
    flat = [name for item in lists for name in item.names] + single
    for a in flat:
        if clash := next((b for b in flat if b != a and f"{b}.".startswith(f"{a}.")), None):
            raise BadInput(f"blocks: {clash!r} lies inside {a!r}; name one of them")
    return (*lists, BlockList("", tuple(single), chained=False)) if single else tuple(lists)


def _refused(why: str, model: nn.Module) -> BadInput:
    """The tree is a note of the error, which keeps its lines where messages are told in one."""
    error = BadInput(f"{why}. Name the list of repeated layers, as in blocks='model.layers'")
    error.add_note(f"the modules are:\n{describe_tree(model)}")
    return error


def _tree(module: nn.Module, indent: str, depth: int) -> Iterator[str]:
    for name, child in module.named_children():
        inside = list(child.children())
        if isinstance(child, (nn.ModuleList, nn.Sequential)) and len(inside) > 1 and len({type(c) for c in inside}) == 1:
            yield f"{indent}{name}: {len(inside)} x {type(inside[0]).__name__}"
            inner = inside[0]
        else:
            yield f"{indent}{name}: {type(child).__name__}"
            inner = child
        if depth > 1:
            yield from _tree(inner, indent + "  ", depth - 1)
