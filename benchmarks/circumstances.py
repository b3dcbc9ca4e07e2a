"""Take measurements, say under what they were taken, and write them down."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import secateurs as sc
from secateurs.errors import BadInput
from secateurs.files import write_whole

__all__ = ["circumstances", "measured", "measurements"]


def circumstances() -> dict[str, Any]:
    """Threads of this process, processors, load of the last minute, versions."""
    return {"threads": torch.get_num_threads(), "cpus": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__,
            "python": platform.python_version(), "secateurs": sc.__version__}  # fmt: skip


def measured(parts: Mapping[str, Callable[[], dict[str, Any]]], path: Path) -> None:
    """Take every measurement, show it, and put it into the JSON at ``path``; what else is in there stays."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, measure in parts.items():
        print(f"{name} ...", flush=True)
        found[name] = {**measure(), **circumstances()}
        print(json.dumps(found[name], indent=1), flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(found, indent=1) + "\n").encode())


def measurements(path: Path, module: str) -> dict[str, Any]:
    """What :func:`measured` wrote.

    Raises:
        BadInput: nothing is there; ``module`` makes it.
    """
    if not path.is_file():
        raise BadInput(f"no results in {str(path)!r}: run python -m {module} first")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
