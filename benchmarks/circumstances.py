"""Under what a measurement was taken, and where it is written."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import secateurs as sc
from secateurs.files import write_whole

__all__ = ["circumstances", "written"]


def circumstances() -> dict[str, Any]:
    """Threads of this process, processors, load of the last minute, versions."""
    return {"threads": torch.get_num_threads(), "cpus": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__,
            "python": platform.python_version(), "secateurs": sc.__version__}  # fmt: skip


def written(path: Path, found: Mapping[str, Any]) -> None:
    """Write ``found`` to ``path`` as JSON, in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(found, indent=1) + "\n").encode())
