"""The page beside a pruned model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs.errors import MissingExtra
from secateurs.files import write_whole
from secateurs.report import pruning_page

__all__ = ["PAGE", "write_page"]

PAGE = "report.html"


def write_page(told: Mapping[str, Any], folder: Path) -> tuple[str | None, str]:
    """Write the page of what was done into ``folder``: its path, and words for where it is or why there is none.

    It is written when the model has been verified, so the folder's checksums do not cover it.
    """
    try:
        page = pruning_page(told)
    except MissingExtra as error:
        return None, f"none: {error}"
    write_whole(folder / PAGE, page.encode())
    return str(folder / PAGE), str(folder / PAGE)
