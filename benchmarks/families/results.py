"""The committed records: JSON Lines, one finished run a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read"]


def read(path: Path) -> list[dict[str, Any]]:
    """The records of ``path``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
