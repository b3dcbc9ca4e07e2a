"""Hugging Face models whose new widths their configuration can say: found by building, not by the names of fields.

A field of the configuration is tried at a new value where it held an old size that changed; the model is built on the meta
device and its shapes compared with those wanted. What fits in every shape and then gives the same outputs is an ordinary model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.apply.layer_configs import by_layer, lawful_values
from secateurs.formats import adopt, built_on_meta, is_pretrained, record_of

__all__ = ["build", "move", "rebuilt"]

_TRIES = 200  # builds on the meta device before giving up: a tiny model takes milliseconds, a large one a tenth of a second
_MOST = 16  # changes of sizes that one configuration may be able to say; layers that all differ make more
_BEAM = 4
Shapes = dict[str, tuple[int, ...]]
Field = tuple[tuple[str, ...], str, int | None]
"""Path of the sub-configuration, name, and index where the value is a list."""


def rebuilt(dense: nn.Module, smaller: nn.Module, problem: Callable[[nn.Module], str]) -> nn.Module | None:
    """A model of ``dense``'s class, built from a changed configuration, with the tensors of ``smaller``; None if there is none.

    ``problem`` says how a candidate's outputs differ from those wanted; the candidate counts only if they do not.
    """
    if not is_pretrained(dense) or record_of(dense) is not None:
        return None
    wanted = _shapes(smaller)
    for final in (final for config in _configs(dense, wanted) for final in _with_norms(config, dense, smaller)):
        model = build(dense, final) if _sayable(final) else None
        if model is None or _shapes(model) != wanted:
            continue
        move(smaller, model)
        if not any(t.is_meta for t in (*model.parameters(), *model.buffers())) and not problem(model):
            return model
    return None


def _sayable(config: Any) -> bool:
    """Whether transformers itself accepts the configuration when it is written and read."""
    try:
        getattr(config, "validate", lambda: None)()
        type(config).from_dict(json.loads(config.to_json_string()))
    except Exception:  # whatever its validators raise: they differ by version
        return False
    return True


def _shapes(model: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in model.named_parameters(remove_duplicate=False)}


def build(dense: nn.Module, config: Any) -> nn.Module | None:
    """A model of the class of ``dense`` on the meta device; None where ``config`` cannot be built."""
    return built_on_meta(lambda: type(dense)(copy.deepcopy(config)))


def _configs(dense: Any, wanted: Shapes) -> Iterator[Any]:
    """Configurations that build the shapes wanted: with fields that hold for all layers, then with layers of their own."""
    start = _explicit(dense, _shapes(dense))
    yield from _search(dense, start, wanted)
    names = [name for (path, name, place), _ in _fields(start, ()) if place is None]
    uneven = by_layer(start, wanted, lambda config: _built_shapes(dense, config), dict.fromkeys(names))
    if uneven is not None:
        yield from _search(dense, uneven, wanted)


def _built_shapes(dense: nn.Module, config: Any) -> Shapes | None:
    model = build(dense, config)
    return None if model is None else _shapes(model)


def _search(dense: Any, start: Any, wanted: Shapes) -> Iterator[Any]:
    """Configurations that build the shapes wanted, those of the fewest changes to ``start`` first.

    Field after field is changed; of what makes more dimensions right the best few go on, since several may build the same
    shapes: fewer heads, or narrower ones.
    """
    old = _built_shapes(dense, start)
    if old == wanted:
        yield start
    if old is None or old == wanted or old.keys() != wanted.keys():
        return
    news = _new_sizes(old, wanted)
    if len(news) > _MOST:
        return
    beam, tries, seen = [(_wrong(old, wanted), start)], 0, set()
    while beam and tries < _TRIES:
        found: list[tuple[int, Any]] = []
        for wrong, config in beam:
            for field, value in _options(config, news):
                trial = copy.deepcopy(config)
                _set(trial, field, value)
                text = trial.to_json_string(use_diff=False)
                if text in seen or tries > _TRIES:
                    continue
                seen.add(text)
                tries += 1
                shapes = _built_shapes(dense, trial)
                left = wrong if shapes is None else _wrong(shapes, wanted)
                if not left:
                    yield trial
                elif left < wrong:
                    found.append((left, trial))
        beam = sorted(found, key=lambda item: item[0])[:_BEAM]


def _explicit(dense: Any, shapes: Shapes) -> Any:
    """The configuration with the width of a head said, where it follows from others: the number of heads can then change."""
    config = copy.deepcopy(dense.config)
    if getattr(config, "is_heterogeneous", False):
        return config  # its layers say their own sizes, and reading one for all of them raises
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    if getattr(config, "head_dim", 0) is None and isinstance(width, int) and isinstance(heads, int):
        config.head_dim = width // heads
        model = build(dense, config)
        if model is None or _shapes(model) != shapes:
            return copy.deepcopy(dense.config)
    return config


def _wrong(found: Shapes, wanted: Shapes) -> int:
    """Dimensions that are not as wanted."""
    if found.keys() != wanted.keys():
        return 1 << 30
    return sum(a != b for name in wanted for a, b in zip(found[name], wanted[name], strict=False))


def _new_sizes(old: Shapes, wanted: Shapes) -> list[tuple[int, int]]:
    pairs = {(a, b) for name in old for a, b in zip(old[name], wanted[name], strict=True) if a != b}
    return sorted(pairs)


def _options(config: Any, news: list[tuple[int, int]]) -> Iterator[tuple[Field, int]]:
    """Every field and value worth trying: a changed size itself, a divisor of it (a number of heads), or one not set."""
    for field, value in _fields(config, ()):
        options = sorted({new for _, new in news}) if value is None else lawful_values(value, news)
        yield from ((field, option) for option in options)


def _fields(config: Any, path: tuple[str, ...]) -> Iterator[tuple[Field, Any]]:
    for name, value in list(vars(config).items()):
        if name.startswith("_") or name.endswith(("_id", "_ids", "_index")) or name in _NOT_SIZES:
            continue
        if (type(value) is int and value > 1) or (value is None and name.endswith(_UNSET)):
            yield (path, name, None), value
        elif isinstance(value, (list, tuple)) and value and all(type(item) is int for item in value):
            yield from (((path, name, place), item) for place, item in enumerate(value) if item > 1)
        elif hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _fields(value, (*path, name))


_UNSET = ("_dim", "_size", "_inner", "_heads")  # what follows from other fields as long as it is not said
_NOT_SIZES = frozenset((
    "vocab_size", "num_labels", "num_hidden_layers", "num_layers", "max_position_embeddings", "n_positions", "n_layer", "n_ctx",
    "image_size", "patch_size", "num_channels", "sliding_window", "pad_token_id", "transformers_version", "type_vocab_size",
    "tie_word_embeddings", "chunk_size_feed_forward", "use_cache", "depths", "window_size",
))  # fmt: skip


def _set(config: Any, field: Field, value: int) -> None:
    path, name, place = field
    for part in path:
        config = getattr(config, part)
    if place is None:
        setattr(config, name, value)
    else:
        items = list(getattr(config, name))
        items[place] = value
        setattr(config, name, type(getattr(config, name))(items))


def _with_norms(config: Any, dense: nn.Module, smaller: nn.Module) -> Iterator[Any]:
    """``config``, with eps as repaired norms have it where all of them agree and one field held the old value."""
    before, after = dict(dense.named_modules()), dict(smaller.named_modules())
    moved = {(old, new) for path in before for old, new in _floats(before[path], after[path])}
    if moved:
        changed = copy.deepcopy(config)
        for name, value in list(vars(changed).items()):
            news = {new for old, new in moved if type(value) is float and value == old}
            if len(news) == 1 and not name.startswith("_"):
                setattr(changed, name, news.pop())
        yield changed
    else:
        yield config


def _floats(old: nn.Module, new: nn.Module) -> Iterator[tuple[float, float]]:
    mine = vars(new)
    for name, value in vars(old).items():
        if type(value) is float and type(mine.get(name)) is float and mine[name] != value:
            yield value, mine[name]


@torch.no_grad()
def move(smaller: nn.Module, model: nn.Module) -> None:
    """Tensors, modes and what needs a gradient, from one module tree to another of the same names."""
    own: dict[str, Tensor] = dict(smaller.named_parameters(remove_duplicate=False))
    adopt(model, {**own, **dict(smaller.named_buffers(remove_duplicate=False))})
    needs = {name: p.requires_grad for name, p in own.items()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(needs[name])
        parameter.grad = own[name].grad
    modes = {path: module.training for path, module in smaller.named_modules()}
    for path, module in model.named_modules():
        module.training = modes.get(path, module.training)
