"""Images and recordings to calibrate on: what a source holds, a few of it at random, each decoded by itself.

A source is one file, a folder with files (those of its subfolders too), a ``.parquet`` file with a column of them, or the name
of a dataset. A value of a column is the file's bytes, a mapping with ``bytes`` or ``path`` (as the ``datasets`` library writes
them), or what that library has decoded.
"""

from __future__ import annotations

import io
import random
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require
from secateurs.statistics.columns import dataset_column, parquet_column

__all__ = ["AUDIO", "IMAGES", "Item", "find_items", "open_image", "open_wave", "resampled", "some"]

AUDIO = (".wav",)
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
_WIDTHS = {1: "u1", 2: "<i2", 4: "<i4"}
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """An image or a recording that is not decoded yet, and what to call it in an error."""

    name: str
    value: Any

    @property
    def path(self) -> Path | None:
        """Its file, if it is one."""
        return self.value if isinstance(self.value, Path) else None

    def stream(self) -> io.BytesIO:
        """Its bytes.

        Raises:
            BadInput: there are none: neither bytes nor a file.
        """
        value = self.value
        if isinstance(value, Mapping):
            value = value.get("bytes") or Path(str(value.get("path")))
        if isinstance(value, Path):
            try:
                value = value.read_bytes()
            except OSError as error:
                raise BadInput(f"{self.name} cannot be read: {error.strerror or error}") from error
        if not isinstance(value, (bytes, bytearray)):
            raise BadInput(f"{self.name} is {type(value).__name__}, not the bytes of a file")
        return io.BytesIO(value)


def find_items(source: str | Path, suffixes: Sequence[str], column: str) -> list[Item]:
    """What ``source`` holds, in the order of names or rows.

    Raises:
        BadInput: there is no such source, no such column, or nothing in it.
        CorruptFile: not a whole parquet file.
    """
    path = Path(source).expanduser()
    files = f"a folder of {' or '.join(suffixes[:2])} files, one such file, or a .parquet file"
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix.lower() in suffixes]
        items = [Item(repr(str(file)), file) for file in found]
    elif path.is_file() and path.suffix.lower() in suffixes:
        items = [Item(repr(str(path)), path)]
    elif path.is_file() and path.suffix == ".parquet":
        items = [Item(f"row {i} of {str(path)!r}", value) for i, value in enumerate(parquet_column(path, column))]
    elif path.exists():
        raise BadInput(f"{str(source)!r} cannot be read: give {files}")
    elif path.suffix:
        raise BadInput(f"{str(source)!r} does not exist")
    else:
        items = [Item(f"row {i} of {source!r}", value) for i, value in enumerate(dataset_column(str(source), column, files))]
    if not items:
        raise BadInput(f"{str(source)!r} holds none of what is needed: give {files}")
    return items


def some(items: Sequence[T], most: int, seed: int) -> list[T]:
    """``most`` of ``items`` in an order that follows ``seed``; all of them, in such an order, where there are no more."""
    return random.Random(seed).sample(list(items), min(most, len(items)))


def open_image(item: Item) -> Any:
    """A PIL image in RGB.

    Raises:
        CorruptFile: it is no image, or not a whole one.
        MissingExtra: Pillow is not installed.
    """
    image = require("PIL.Image", "images")
    if isinstance(item.value, image.Image):
        return item.value.convert("RGB")
    stream = item.stream()
    try:
        with image.open(stream) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        raise CorruptFile(f"{item.name} cannot be read as an image: {error}") from error


def open_wave(item: Item) -> tuple[NDArray[np.float32], int]:
    """The samples in [-1, 1], channels averaged, and how many there are in a second.

    Raises:
        CorruptFile: it is no WAV file of whole numbers, or an empty one.
    """
    stream = item.stream()
    try:
        with wave.open(stream) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise CorruptFile(f"{item.name} cannot be read as a WAV file of whole numbers (PCM): {error}") from error
    if not data:
        raise CorruptFile(f"{item.name} has no sample in it")
    if width == 3:  # a byte of zeros below makes it 32 bits
        data, width = np.pad(np.frombuffer(data, "u1").reshape(-1, 3), ((0, 0), (1, 0))).tobytes(), 4
    whole = np.frombuffer(data, dtype=np.dtype(_WIDTHS[width])).astype(np.float64).reshape(-1, channels).mean(1)
    middle, top = (128.0, 128.0) if width == 1 else (0.0, 2.0 ** (8 * width - 1))
    return ((whole - middle) / top).astype(np.float32), rate


def resampled(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """``samples`` at ``wanted`` a second: what lies above half the lower rate is cut off, the rest is as it was."""
    if rate == wanted:
        return samples
    length = max(1, round(len(samples) * wanted / rate))
    spectrum = np.fft.rfft(samples.astype(np.float64))[: length // 2 + 1]
    return (np.fft.irfft(spectrum, length) * (length / len(samples))).astype(np.float32)
