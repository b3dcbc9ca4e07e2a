"""Widths that differ from layer to layer, in the words of a configuration: the fields that its ``per_layer_config`` overrides.

transformers lets every configuration override fields for single layers, and few of its classes read them: Step 3.7 its heads,
Gemma 4 its key-value heads. Which do is found by building: one that does not refuses, or builds the same shapes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = ["by_layer", "lawful_values"]

Shapes = Mapping[str, tuple[int, ...]]
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def by_layer(config: Any, wanted: Shapes, shapes_of: Callable[[Any], Shapes | None], names: Iterable[str]) -> Any | None:
    """``config`` with overrides that make more dimensions of its layers as ``wanted``; None where none do.

    Args:
        config: of the whole model; of a model of several towers, those that are part of it are tried in turn.
        wanted: shapes of the parameters by name.
        shapes_of: those that a configuration builds; None where it builds nothing.
        names: fields that may say a size. A number of heads is tried before their width, since both may build the same shapes.
    """
    found, shapes = config, shapes_of(config)
    if shapes is None or shapes.keys() != wanted.keys():
        return None
    ordered = sorted(names, key=lambda name: "dim" in name)
    for path, part in _parts(config, ()):
        for name in ordered:
            if type(vars(part).get(name)) is int:
                found, shapes = _overridden(found, shapes, wanted, shapes_of, path, name)
    return None if found is config else found


def lawful_values(value: int, news: Iterable[tuple[int, int]]) -> list[int]:
    """What may follow ``value`` where old sizes became new ones: a new size itself, or a divisor of it (a number of heads)."""
    found = set()
    for old, new in news:
        if value == old:
            found.add(new)
        elif old % value == 0 and new % (old // value) == 0:
            found.add(new // (old // value))
    return sorted(option for option in found - {value} if option > 0)


def _parts(config: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The configurations inside ``config`` that have layers and can override their fields, itself among them."""
    if hasattr(type(config), "per_layer_config") and type(getattr(config, "num_hidden_layers", None)) is int:
        yield path, config
    for name, value in vars(config).items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _parts(value, (*path, name))


def _overridden(config: Any, shapes: Shapes, wanted: Shapes, shapes_of: Callable[[Any], Shapes | None], path: tuple[str, ...],
                name: str) -> tuple[Any, Shapes]:  # fmt: skip
    """Try values of one field in all layers at once, for no layer has a say in another's shapes; each keeps its best."""
    part = _at(config, path)
    own, general = _overrides(part), vars(part)[name]
    wrong = {layer: _wrong(shapes, wanted, layer) for layer in range(part.num_hidden_layers)}
    options = {layer: lawful_values(own.get(layer, {}).get(name, general), _changes(shapes, wanted, layer)) for layer in wrong}
    best: dict[int, int] = {}
    for turn in range(max(map(len, options.values()), default=0)):
        tried = {layer: values[turn] for layer, values in options.items() if turn < len(values)}
        built = shapes_of(_with(config, path, name, tried))
        for layer, value in tried.items() if built is not None and built.keys() == wanted.keys() else ():
            left = _wrong(built, wanted, layer)  # type: ignore[arg-type]
            if left < wrong[layer]:
                wrong[layer], best[layer] = left, value
    changed = _with(config, path, name, best)
    after = shapes_of(changed) if best else None
    return (config, shapes) if after is None else (changed, after)


def _with(config: Any, path: tuple[str, ...], name: str, values: Mapping[int, int]) -> Any:
    changed = copy.deepcopy(config)
    part = _at(changed, path)
    overrides = _overrides(part)
    for layer, value in values.items():
        overrides.setdefault(layer, {})[name] = value
    part.per_layer_config = overrides
    return changed


def _at(config: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        config = getattr(config, name)
    return config


def _overrides(part: Any) -> dict[int, dict[str, Any]]:
    return {int(layer): dict(fields) for layer, fields in part.to_dict().get("per_layer_config", {}).items()}


def _of(layer: int, names: Iterable[str]) -> Iterator[str]:
    """The parameters of a layer: the first number in their names is its."""
    for name in names:
        number = _LAYER.search(name)
        if number is not None and int(number[1]) == layer:
            yield name


def _wrong(found: Shapes, wanted: Shapes, layer: int) -> int:
    return sum(a != b for name in _of(layer, wanted) for a, b in zip(found[name], wanted[name], strict=True))


def _changes(found: Shapes, wanted: Shapes, layer: int) -> list[tuple[int, int]]:
    """The sizes in ``layer`` that are not as wanted, with those they should be."""
    pairs = {(a, b) for name in _of(layer, wanted) for a, b in zip(found[name], wanted[name], strict=True) if a != b}
    return sorted(pairs)
