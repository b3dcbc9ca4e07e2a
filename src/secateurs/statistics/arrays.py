"""Ready model inputs in a file: arrays by name, with a row per sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require

__all__ = ["ARRAYS", "read_arrays"]

ARRAYS = (".safetensors", ".npz")


def read_arrays(source: str | Path) -> dict[str, Tensor]:
    """The arrays of a ``.safetensors`` or ``.npz`` file by name, each with a row per sample. Nothing is unpickled.

    Raises:
        BadInput: there is no such file, it is empty, or the arrays have different numbers of rows.
        CorruptFile: not a whole file, or an array of Python objects.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise BadInput(f"{str(source)!r} does not exist" if not path.exists() else f"{str(source)!r} is not a file")
    found = _safetensors(path) if path.suffix == ".safetensors" else _npz(path)
    rows = {name: len(value) if value.dim() else None for name, value in found.items()}
    if not found or not all(rows.values()):
        raise BadInput(f"{str(source)!r} holds no samples: every array needs at least one row (rows by name: {rows})")
    if len(set(rows.values())) > 1:
        raise BadInput(f"{str(source)!r} has arrays of different numbers of samples, {rows}: each needs a row per sample")
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = require("safetensors.torch", "files").load_file(path)
    except require("safetensors", "files").SafetensorError as error:
        raise CorruptFile(f"{str(path)!r} is not a whole safetensors file: {error}") from error
    return found


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored.files}
    except Exception as error:  # a broken archive, objects, or numbers that torch has no name for
        raise CorruptFile(f"{str(path)!r} cannot be read as arrays of numbers: {type(error).__name__}: {error}") from error
