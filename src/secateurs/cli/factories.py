"""``--factory module:function`` on the command line: the user's own code that builds a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from secateurs.errors import BadInput
from secateurs.usercode import find

__all__ = ["find_factory"]


def find_factory(text: str) -> Callable[[], nn.Module]:
    """The function that ``text`` names; calling it gives a module, or :class:`BadInput` saying what went wrong.

    Modules are found as Python finds them, and in the current folder. Nothing but what ``text`` names is imported.

    Raises:
        BadInput: not ``module:function``, no such module or function, or the import fails.
    """
    function = find(text, "--factory")
    return lambda: _build(function, text)


def _build(function: Callable[[], Any], text: str) -> nn.Module:
    try:
        model = function()
    except Exception as error:
        raise BadInput(f"--factory {text!r} failed: {type(error).__name__}: {error}; it is called without arguments") from error
    if not isinstance(model, nn.Module):
        raise BadInput(f"--factory {text!r} returned a {type(model).__name__}; it must return a torch.nn.Module")
    return model
