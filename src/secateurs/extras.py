"""Optional dependencies: imported where they are used, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from secateurs.errors import MissingExtra

__all__ = ["require"]


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``; if it is absent raise :class:`MissingExtra` naming the extra of this package that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, but something it needs is broken: that is not ours to rename
        package = module.partition(".")[0]
        raise MissingExtra(f"this needs {package!r}, which is not installed: pip install 'secateurs[{extra}]'") from error
