"""What a command does when it fails: one readable line on stderr and an exit code that means something."""

from __future__ import annotations

import shlex
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperCommand

from secateurs.errors import BadInput, BrokenPromise, CorruptFile, MissingExtra, NotFinite

__all__ = ["INTERRUPTED", "WORDS", "Command", "exit_code"]

INTERRUPTED = 130  # the exit code of a command ended by Ctrl-C, as shells have it
WORDS = "secateurs.words"  # where a context has the command as it was given


class Command(TyperCommand):
    """A command whose errors are told in one line; ``secateurs --debug`` prints the traceback as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command, and keep them as they were given."""
        ctx.meta[WORDS] = shlex.join(["secateurs", ctx.info_name, *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.find_root().params.get("debug"):
                traceback.print_exc()
            print(f"secateurs {ctx.info_name}: {_line(error)}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
            raise typer.Exit(exit_code(error)) from error


def exit_code(error: Exception) -> int:
    """2 for what the user can correct, 3 for a promise not kept, 1 for everything else."""
    if isinstance(error, BrokenPromise):
        return 3
    return 2 if isinstance(error, (BadInput, CorruptFile, MissingExtra, NotFinite)) else 1


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (BadInput, BrokenPromise, CorruptFile, MissingExtra, NotFinite)):
        return text
    return f"failed: {type(error).__name__}: {text} (secateurs --debug ... shows where)"
