"""How a model's tensors lie in its folder's files: under other names, or apart where the model has them in one.

Transformers renames and converts tensors when it loads a folder (the matrices of single experts are stacked, say) and turns
that back when it saves. Here its own rules are applied to one tensor at a time, so that no more than that is in memory.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.extras import require

__all__ = ["Group", "Layout"]


@dataclass(frozen=True)
class Group:
    """Stored tensors and what they are in the model.

    Attributes:
        stored: the files' names.
        names: the model's.
        patterns: which source pattern of the ``converter`` each stored name fits.
        converter: transformers' rule; None where one stored tensor is one of the model's, as it is.
    """

    stored: tuple[str, ...]
    names: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    converter: Any = None

    def load(self, get: Callable[[str], Tensor], model: Any) -> dict[str, Tensor]:
        """The model's tensors by its names, from the stored ones that ``get`` gives."""
        if self.converter is None:
            return {self.names[0]: get(self.stored[0])}
        converter = copy.deepcopy(self.converter)
        for name, pattern in zip(self.stored, self.patterns, strict=True):
            converter.add_tensor(self.names[0], name, pattern, get(name))
        found = converter.convert(self.names[0], model=model, config=model.config)
        found = found[0] if isinstance(found, tuple) else found  # older ones return the errors as well
        return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}

    def store(self, tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
        """The stored tensors by the files' names, from the model's."""
        mine = {name: tensors[name] for name in self.names}
        if self.converter is None:
            return {self.stored[0]: mine[self.names[0]]}
        found = _core().revert_weight_conversion(model, mine)
        prefix = f"{getattr(model, 'base_model_prefix', '')}."
        spelled = {name: next((s for s in (name, name.removeprefix(prefix), prefix + name) if s in self.stored), name)
                   for name in found}  # fmt: skip
        return {spelled[name]: value.contiguous() for name, value in found.items()}


class Layout:
    """The groups of a folder's tensors.

    Args:
        model: of transformers, on any device.
        stored: what the files hold, by name, as meta tensors.

    Attributes:
        groups: in the order of the model.
        plain: whether every tensor is stored as the model has it, with or without its base model's prefix.

    Raises:
        BadInput: transformers cannot convert what is stored, or gives other shapes than the model has.
    """

    def __init__(self, model: nn.Module, stored: Mapping[str, Tensor]):
        self._model: Any = model
        self._hollow = stored
        own = model.state_dict()
        found = [self._complete(group) for group in _groups(self._model, stored, own)]
        for group in found:
            self._check_shapes(group, own)
        self._by_name = {name: group for group in found for name in group.names}
        self.groups = tuple({self._by_name[name].stored: self._by_name[name] for name in own if name in self._by_name}.values())
        prefix = f"{getattr(model, 'base_model_prefix', '')}."
        self.plain = all(
            g.converter is None and g.stored[0].removeprefix(prefix) == g.names[0].removeprefix(prefix) for g in self.groups
        )

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def of(self, name: str) -> Group:
        """The group of one of the model's tensors."""
        return self._by_name[name]

    def load(self, name: str, get: Callable[[str], Tensor]) -> Tensor:
        """One of the model's tensors; ``get`` reads stored ones."""
        return self._by_name[name].load(get, self._model)[name]

    def store(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Some of the model's tensors as what would be stored of them; others of their groups have to be among them."""
        groups = {self._by_name[name].stored: self._by_name[name] for name in tensors if name in self._by_name}
        for group in groups.values():
            yield from group.store(tensors, self._model).items()

    def check_reversible(self) -> None:
        """Raise :class:`BadInput` if what transformers converts on loading cannot be turned back to what is stored."""
        for group in self.groups:
            if group.converter is None:
                continue
            try:
                own = group.load(self._hollow.__getitem__, self._model)
                back = {name: value.shape for name, value in group.store(own, self._model).items()}
            except (ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
                raise _unfit(group, f"which cannot be turned back ({error})") from error
            if back != {name: self._hollow[name].shape for name in group.stored}:
                raise _unfit(group, f"which turns back to {len(back)} others, first {next(iter(back))!r}")

    def _check_shapes(self, group: Group, own: Mapping[str, Any]) -> None:
        for name, value in group.load(self._hollow.__getitem__, self._model).items():
            if name in own and value.shape != own[name].shape:
                raise BadInput(f"the files give {name!r} the shape {tuple(value.shape)} (from {len(group.stored)} tensors, "
                               f"first {group.stored[0]!r}), and the model has {tuple(own[name].shape)}")  # fmt: skip

    def _complete(self, group: Group) -> Group:
        """The group with all its names: a converter may make several tensors of one."""
        if group.converter is None:
            return group
        try:
            return replace(group, names=tuple(group.load(self._hollow.__getitem__, self._model)))
        except (ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
            raise _unfit(group, f"which fails for it alone ({error})") from error


def _groups(model: Any, stored: Mapping[str, Tensor], own: Mapping[str, Any]) -> list[Group]:
    """The stored names by the first of the model's names that they become; what the model lacks is left out."""
    core, mapping = _core(), require("transformers.conversion_mapping", "transformers")
    rules = mapping.get_model_conversion_mapping(model) or []
    renamings = [rule for rule in rules if isinstance(rule, core.WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, core.WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    found: dict[str, list[tuple[str, str | None]]] = {}
    for name in sorted(stored, key=_natural):
        target, pattern = core.rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if target not in own and name in own:
            target, pattern = core.rename_source_key(name, [], [], model.base_model_prefix, own)
        if target in own:
            found.setdefault(target, []).append((name, pattern))
    told = all(hasattr(rule, "was_used") for rule in rules)  # older ones do not tell
    model._weight_conversions = ([rule for rule in rules if rule.was_used()] if told
                                 else mapping.get_model_conversion_mapping(model, add_legacy=False) or [])  # fmt: skip
    return [_group(target, parts, by_pattern) for target, parts in found.items()]


def _group(target: str, parts: Sequence[tuple[str, str | None]], by_pattern: Mapping[str, Any]) -> Group:
    patterns = [pattern for _, pattern in parts if pattern is not None]
    names = tuple(name for name, _ in parts)
    if patterns:
        return Group(names, (target,), tuple(patterns), by_pattern[patterns[0]])
    if len(names) > 1:
        raise BadInput(f"the files hold {target!r} more than once, as {names[0]!r} and {names[1]!r}")
    return Group(names, (target,))


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in their order: expert 2 before expert 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _core() -> Any:
    return require("transformers.core_model_loading", "transformers")


def _unfit(group: Group, why: str) -> BadInput:
    return BadInput(f"{group.stored[0]!r} is converted by transformers when it is loaded, to {group.names[0]!r}, {why}: "
                    "without a memory budget the whole model can be opened")  # fmt: skip
