"""Checks of single values and keys of a comparison; each quotes what was said and what would work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from secateurs.core.count import check_sparsity
from secateurs.errors import BadInput, near

__all__ = ["check_seeds", "check_sparsities", "known_keys", "no_doubles", "no_switch", "number", "one_of", "placed", "whole"]

SWITCHES = ("autocast", "nesterov")  # the keys that do take yes or no


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Put ``place`` before the message of a :class:`BadInput` from inside."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{place}: {error}" if place else str(error)) from error


def known_keys(data: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
    """Raise :class:`BadInput` with the nearest names if ``data`` has a key that is not ``known``."""
    known = list(known)
    for key in data:
        if key not in known:
            raise BadInput(f"key {key!r} is unknown{where}" + (near(key, known) or f"; the keys are {', '.join(known)}"))


def check_sparsities(said: Any, what: str) -> tuple[float, ...]:
    """Shares to remove, each in [0, 1) and none twice."""
    if not isinstance(said, (list, tuple)) or not said:
        raise BadInput(f"{what}={said!r}: give a list of shares to remove, as [0.8, 0.9]")
    shares = tuple(check_sparsity(share, what) for share in said)
    no_doubles(what, shares)
    return shares


def check_seeds(seeds: Sequence[Any]) -> None:
    """Distinct whole numbers, at least one."""
    if not seeds:
        raise BadInput("seeds: name at least one")
    for seed in seeds:
        whole("seeds", seed, 0)
    no_doubles("seeds", seeds)


def no_doubles(what: str, values: Sequence[Any], remedy: str = "once is enough") -> None:
    """Raise :class:`BadInput` if a value is there twice."""
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise BadInput(f"{what}: {twice[0]!r} is there twice; {remedy}")


def whole(key: str, value: Any, least: int) -> None:
    """Raise :class:`BadInput` unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{key}={value!r}: give a whole number, at least {least}")


def number(key: str, value: Any, fits: Callable[[float], bool], what: str) -> None:
    """Raise :class:`BadInput` unless ``value`` is a finite number that ``fits``; ``what`` says which do."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not fits(value):
        raise BadInput(f"{key}={value!r}: give a number, {what}")


def one_of(key: str, value: Any, known: Iterable[str]) -> None:
    """Raise :class:`BadInput` with the nearest names unless ``value`` is ``known``."""
    known = list(known)
    if value not in known:
        raise BadInput(f"{key} {value!r} is unknown; use one of {', '.join(known)}{near(value, known)}")


def no_switch(value: Any, place: str) -> None:
    """Refuse yes and no where a number or a name stands: to YAML ``on`` is true, and true would count as 1."""
    if isinstance(value, bool) and place not in SWITCHES:
        raise BadInput(f"{place}: takes no yes or no, true or false, on or off (found {value})")
    if isinstance(value, Mapping):
        for key, item in value.items():
            no_switch(item, str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            no_switch(item, place)
