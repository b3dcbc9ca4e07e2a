"""``module:function`` on the command line: the user's own code that builds a network."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from secateurs.errors import BadInput, near

__all__ = ["find_factory"]


def find_factory(text: str) -> Callable[[], nn.Module]:
    """The function that ``text`` names; calling it gives a module, or :class:`BadInput` saying what went wrong.

    Modules are found as Python finds them, and in the current folder. Nothing but what ``text`` names is imported.

    Raises:
        BadInput: not ``module:function``, no such module or function, or the import fails.
    """
    module, colon, name = text.partition(":")
    if not colon or not module or not name or "/" in module or module.endswith(".py"):
        raise BadInput(f"--factory {text!r}: write module:function, as in --factory networks:build "
                       "for build() in networks.py of this folder")  # fmt: skip
    function: Any = _import(module, text)
    for part in name.split("."):
        if not hasattr(function, part):
            known = [n for n in dir(function) if not n.startswith("_")]
            raise BadInput(f"--factory {text!r}: {module!r} has no {name!r}" + near(part, known))
        function = getattr(function, part)
    if not callable(function):
        raise BadInput(f"--factory {text!r}: {name!r} is a {type(function).__name__}; name a function that builds the network")
    return lambda: _build(function, text)


def _import(module: str, text: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise BadInput(f"--factory {text!r}: no module {error.name!r} in {here} or among the installed ones") from error
        raise BadInput(f"--factory {text!r}: importing {module!r} failed: {type(error).__name__}: {error}") from error


def _build(function: Callable[[], Any], text: str) -> nn.Module:
    try:
        model = function()
    except Exception as error:
        raise BadInput(f"--factory {text!r} failed: {type(error).__name__}: {error}; it is called without arguments") from error
    if not isinstance(model, nn.Module):
        raise BadInput(f"--factory {text!r} returned a {type(model).__name__}; it must return a torch.nn.Module")
    return model
