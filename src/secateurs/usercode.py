"""The user's own functions, named ``module:function`` in a command or a recipe."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from secateurs.errors import BadInput, near

__all__ = ["find", "source_hash"]


def find(text: str, key: str) -> Callable[..., Any]:
    """The function that ``text`` names. Modules are found as Python finds them, and in the current folder.

    Nothing but what ``text`` names is imported.

    Args:
        text: ``module:function``; the function may be inside a class, ``module:Class.method``.
        key: where the text was written, to be quoted in errors: ``"--factory"``, ``"task 'mnist': model"``.

    Raises:
        BadInput: not ``module:function``, no such module or function, or the import fails.
    """
    module, colon, name = text.partition(":")
    if not colon or not module or not name or "/" in module or module.endswith(".py"):
        raise BadInput(f"{key} {text!r}: write module:function, as in networks:build for build() in networks.py of this folder")
    function: Any = _import(module, f"{key} {text!r}")
    for part in name.split("."):
        if not hasattr(function, part):
            known = [n for n in dir(function) if not n.startswith("_")]
            raise BadInput(f"{key} {text!r}: {module!r} has no {name!r}" + near(part, known))
        function = getattr(function, part)
    if not callable(function):
        raise BadInput(f"{key} {text!r}: {name!r} is a {type(function).__name__}; name a function")
    return function


def source_hash(function: Callable[..., Any]) -> str:
    """Ten hexadecimal digits of the source file that defines ``function``: they change when its code may have changed.

    A function without a file (typed into a session, compiled) has the hash of its qualified name.
    """
    try:
        content = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").read_bytes()
    except (TypeError, OSError):
        content = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}".encode()
    return hashlib.sha256(content).hexdigest()[:10]


def _import(module: str, said: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise BadInput(f"{said}: no module {error.name!r} in {here} or among the installed ones") from error
        raise BadInput(f"{said}: importing {module!r} failed: {type(error).__name__}: {error}") from error
