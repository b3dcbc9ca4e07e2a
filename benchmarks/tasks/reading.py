"""Reading the data folder, and keeping what is slow to make (decoded images, subword ids) in a cache folder."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from secateurs.errors import BadInput

__all__ = ["CACHE", "beside", "columns", "images", "kept", "root"]

CACHE = Path(__file__).parents[1] / "runs" / "cache"


def root() -> Path:
    """The folder that holds ``data/`` and ``models/``: the environment's ``SECATEURS_DATA``."""
    said = os.environ.get("SECATEURS_DATA")
    if not said:
        raise BadInput("no data folder: set the environment's SECATEURS_DATA to the folder that holds data/ and models/")
    if not (Path(said) / "data").is_dir():
        raise BadInput(f"SECATEURS_DATA={said!r} holds no folder named 'data'")
    return Path(said)


def columns(dataset: str, split: str) -> dict[str, list[Any]]:
    """The columns of ``data/<dataset>/<split>.parquet`` as Python lists."""
    return parquet.read_table(_file(dataset, split)).to_pydict()


def images(dataset: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as ``[N, channels, height, width]`` bytes (mapped from the cache) and their ``[N]`` labels."""

    def pixels() -> np.ndarray:
        return np.stack([_decoded(record["bytes"]) for record in columns(dataset, split)["image"]])

    labels = kept(f"{dataset}-{split}-labels", dataset, split, lambda: np.asarray(columns(dataset, split)["label"], np.int64))
    return kept(f"{dataset}-{split}-pixels", dataset, split, pixels), labels


def kept(name: str, dataset: str, split: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """``make()``, or what an earlier call for the same file of data (path and size) left in the cache, mapped from there."""
    source = _file(dataset, split)
    key = hashlib.sha256(f"{source.resolve()} {source.stat().st_size}".encode()).hexdigest()[:8]
    path = CACHE / f"{name}-{key}.npy"
    if not path.is_file():
        with open(beside(path), "wb") as file:
            np.save(file, make())
        beside(path).replace(path)
    return np.load(path, mmap_mode="r")


def beside(path: Path) -> Path:
    """Where this process writes what is then renamed to ``path``; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _file(dataset: str, split: str) -> Path:
    path = root() / "data" / dataset / f"{split}.parquet"
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}")
    return path


def _decoded(data: bytes) -> np.ndarray:
    """An image file as ``[channels, height, width]`` bytes, greyscale as one channel."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
