"""One column of a parquet file or of a dataset, as plain values."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs.errors import BadInput, CorruptFile, near
from secateurs.extras import require

__all__ = ["dataset_column", "other_columns", "parquet_column"]


def parquet_column(path: Path, column: str) -> list[Any]:
    """The values of ``column`` in order, nulls left out.

    Raises:
        BadInput: there is no such column; the message says which there are.
        CorruptFile: not a whole parquet file.
        MissingExtra: pyarrow is not installed.
    """
    arrow, parquet = require("pyarrow", "text"), require("pyarrow.parquet", "text")
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise BadInput(f"{str(path)!r} has no column {column!r}{other_columns(column, names)}")
            rows = file.read([column])[column].to_pylist()
    except (arrow.ArrowInvalid, OSError) as error:
        raise CorruptFile(f"{str(path)!r} is not a whole parquet file: {error}") from error
    return [row for row in rows if row is not None]


def dataset_column(name: str, column: str, files: str) -> list[Any]:
    """The values of ``column`` in the training split of the dataset ``name``, nulls left out.

    ``files`` says which files would do instead.

    Raises:
        BadInput: the library ``datasets`` is not installed or cannot load it, or there is no such column.
    """
    if importlib.util.find_spec("datasets") is None:
        raise BadInput(f"{name!r} does not exist; give {files} (names of datasets need the library datasets: pip install "
                       "datasets)")  # fmt: skip
    try:
        rows = importlib.import_module("datasets").load_dataset(name, split="train")
    except Exception as error:
        raise BadInput(f"{name!r} is neither a file nor a dataset that can be loaded: {error}") from error
    if column not in rows.column_names:
        raise BadInput(f"the dataset {name!r} has no column {column!r}{other_columns(column, rows.column_names)}")
    return [row for row in rows[column] if row is not None]


def other_columns(column: str, known: Sequence[str]) -> str:
    """What to add to an error about ``column``: the name that was meant, or those there are."""
    return near(column, known) or (f"; there is {', '.join(map(repr, known))}" if known else "")
