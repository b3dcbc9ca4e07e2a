"""What can go wrong, as types a caller can catch. Every message quotes the user's input and says what would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["BadInput", "BrokenPromise", "CorruptFile", "MissingExtra", "NotFinite", "SecateursError", "near"]


class SecateursError(Exception):
    """Base of every error this library raises on purpose."""


class BadInput(SecateursError, ValueError):
    """An argument, recipe key, model or file name that cannot work (exit code 2)."""


class NotFinite(SecateursError, ArithmeticError):
    """A weight or a score is NaN or infinite; the message names the parameter."""


class CorruptFile(SecateursError, ValueError):
    """A saved folder is truncated, altered, of the wrong shape or from a newer version."""


class BrokenPromise(SecateursError, AssertionError):
    """The work was done but a promised property does not hold (exit code 3)."""


class MissingExtra(SecateursError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


def near(word: object, known: Iterable[str], most: int = 3) -> str:
    """``"; did you mean 'x' or 'y'?"`` for the close matches of ``word`` in ``known``, or an empty string."""
    close = difflib.get_close_matches(str(word), list(known), n=most, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
