"""The command ``secateurs``. Needs the extra ``cli``; what a command does not use it does not import."""

from __future__ import annotations

import sys

from secateurs.errors import MissingExtra
from secateurs.extras import require

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 3 done but a promise was not kept."""
    try:
        for module in ("typer", "rich", "yaml", "pydantic"):
            require(module, "cli")
    except MissingExtra as error:
        print(f"secateurs: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    from secateurs.cli.app import app

    app(prog_name="secateurs")
