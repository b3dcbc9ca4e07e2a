"""Reading the data folder, and keeping what is slow to make (decoded images, subword ids) in a cache folder."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from secateurs.errors import BadInput

__all__ = ["CACHE", "columns", "images", "kept", "root"]

CACHE = Path(__file__).parents[1] / "runs" / "cache"


def root(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds ``data/`` and ``models/``: ``given``, or the environment's ``SECATEURS_DATA``."""
    said = given or os.environ.get("SECATEURS_DATA")
    if not said:
        raise BadInput("no data folder: pass --data DIR, or set SECATEURS_DATA to the folder that holds data/ and models/")
    if not (Path(said) / "data").is_dir():
        raise BadInput(f"{str(said)!r} holds no folder named 'data'")
    return Path(said)


def columns(folder: Path, dataset: str, split: str) -> dict[str, list]:
    """The columns of ``data/<dataset>/<split>.parquet`` as Python lists."""
    path = folder / "data" / dataset / f"{split}.parquet"
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}")
    return parquet.read_table(path).to_pydict()


def images(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 as ``[N, 3, 32, 32]`` bytes (mapped from the cache) and ``[N]`` labels."""
    path = folder / "data" / "cifar10" / f"{split}.parquet"
    pixels = kept(f"cifar10-{split}-pixels", path, lambda: _decoded(columns(folder, "cifar10", split)["image"]))
    labels = kept(f"cifar10-{split}-labels", path, lambda: np.asarray(columns(folder, "cifar10", split)["label"], np.int64))
    return pixels, labels


def kept(name: str, source: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """``make()``, or what an earlier call for the same ``source`` (path and size) left in the cache."""
    if not source.is_file():
        raise BadInput(f"no file {str(source)!r}")
    key = hashlib.sha256(f"{source.resolve()} {source.stat().st_size}".encode()).hexdigest()[:8]
    path = CACHE / f"{name}-{key}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        with open(beside, "wb") as file:
            np.save(file, make())
        os.replace(beside, path)
    return np.load(path, mmap_mode="r")


def _decoded(records: list[dict]) -> np.ndarray:
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(r["bytes"])).convert("RGB")).transpose(2, 0, 1) for r in records])
