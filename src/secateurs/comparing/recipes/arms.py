"""What is compared, as a recipe's ``methods:`` says it: a pruning method with its choices, or a protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from secateurs.comparing.recipes.values import known_keys, no_switch, one_of, placed
from secateurs.comparing.spec import MASKED, PROTOCOLS, PRUNING, Arm, Optimizer, Retrain
from secateurs.errors import BadInput, near
from secateurs.recipe import Recipe, check_types
from secateurs.registry import METHODS, find_method

__all__ = ["arm_from"]

OWN = {  # keys of a protocol besides those of its kind
    "scratch-b": ("cap",),
    "prune": ("retrain",),
    "iterative": ("rounds",),
    "tickets": ("rounds", "rewind", "strategy"),
}


def arm_from(data: Any) -> Arm:
    """An arm from the name of a method or a protocol, or from a mapping.

    Raises:
        BadInput: an unknown name or key, or one that is missing.
    """
    if isinstance(data, Arm):
        return data
    if isinstance(data, str):
        data = _by_name(data)
    if not isinstance(data, Mapping):
        raise BadInput(f"methods: {data!r} is neither a name nor a mapping with method or protocol")
    protocol = data.get("protocol", _usual(data))
    with placed(f"methods: {_title(data)}"):
        if protocol is None:
            raise BadInput("say which method prunes (method:), or which protocol is followed (protocol:)")
        one_of("protocol", protocol, PROTOCOLS)
        fields = [f.name for f in dataclasses.fields(Recipe)] if protocol in PRUNING else []
        own = (*(("of",) if protocol in MASKED else ()), *OWN.get(protocol, ()))
        known_keys(data, ["name", "protocol", *own, *fields], f" in protocol {protocol!r}")
        return _arm(data, protocol, own)


def _by_name(name: str) -> dict[str, Any]:
    if name in METHODS:
        return {"method": name}
    if name in PROTOCOLS:
        return {"protocol": name}
    raise BadInput(f"methods: {name!r} is neither a method ({', '.join(METHODS)}) nor a protocol "
                   f"({', '.join(PROTOCOLS)})" + near(name, [*METHODS, *PROTOCOLS]))  # fmt: skip


def _usual(data: Mapping[str, Any]) -> str | None:
    """The protocol of a method where none is said."""
    if "method" not in data:
        return None
    known = data["method"] in METHODS if isinstance(data["method"], str) else False
    return "tickets" if known and "rounds" in find_method(data["method"]).needs else "prune"


def _title(data: Mapping[str, Any]) -> str:
    """What an error calls an arm before it is one."""
    return repr(data.get("name") or data.get("protocol") or data.get("method") or dict(data))


def _arm(data: Mapping[str, Any], protocol: str, own: tuple[str, ...]) -> Arm:
    settings = {key: value for key, value in data.items() if key not in ("name", "protocol", *own) and value is not None}
    if protocol in PRUNING and "method" not in settings:
        raise BadInput("say which method prunes (method:)")
    if protocol in MASKED and not isinstance(data.get("of"), str):
        raise BadInput(f"{protocol!r} takes the masks of another method: say of which (of:)")
    if settings:
        settings = Recipe.typed(settings).to_dict()  # one spelling, because runs are named by it
    said = {key: data[key] for key in own if data.get(key) is not None}
    no_switch(said, protocol)
    if "retrain" in said:
        _known_retrain(said["retrain"])
    name = data.get("name") or _name(data, protocol)
    return check_types(Arm, {"name": name, "protocol": protocol, "settings": settings, **said})


def _known_retrain(data: Any) -> None:
    if isinstance(data, Mapping):
        known_keys(data, [f.name for f in dataclasses.fields(Retrain)], " in retrain")
        if isinstance(data.get("optimizer"), Mapping):
            known_keys(data["optimizer"], [f.name for f in dataclasses.fields(Optimizer)], " in retrain: optimizer")


def _name(data: Mapping[str, Any], protocol: str) -> str:
    if protocol in MASKED:
        return f"{protocol} of {data['of']}"
    if protocol not in PRUNING:
        return protocol
    return str(data["method"]) if protocol == _usual(data) else f"{protocol} {data['method']}"
