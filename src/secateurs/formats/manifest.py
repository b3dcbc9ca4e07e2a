"""``secateurs.json``: what the folder holds. Written with checksums, and believed only after they are checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from secateurs.errors import BadInput, CorruptFile
from secateurs.formats.encodings import ENCODINGS
from secateurs.formats.state import DTYPES
from secateurs.formats.structure import structure_problem
from secateurs.version import __version__

__all__ = ["INFO", "VERSION", "WEIGHTS", "check_files", "read_info", "to_json", "write_info"]

INFO, WEIGHTS, FORMAT, VERSION = "secateurs.json", "weights.safetensors", "secateurs", 1


def to_json(value: Any, what: str) -> str:
    """``value`` as indented JSON text; an object with ``to_dict()`` is written as that.

    Raises:
        BadInput: it holds something JSON cannot, NaN and infinity included.
    """
    try:
        return json.dumps(value.to_dict() if hasattr(value, "to_dict") else value, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BadInput(f"the {what} cannot be written as JSON: {error}") from error


def write_info(folder: Path, model: Mapping[str, Any], tensors: Mapping[str, Any], ties: Mapping[str, str],
               sizes: Mapping[str, int], structure: Mapping[str, Any] | None = None) -> None:  # fmt: skip
    """Write the manifest of ``folder``, which holds all its other files by now; ``structure`` only of a shrunk model."""
    written = sorted(folder.iterdir())
    info: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": {"secateurs": __version__, "torch": torch.__version__},
        "model": model,
        "sizes": {**sizes, "file_bytes": sum(file.stat().st_size for file in written)},
        "ties": ties,
        "tensors": tensors,
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in written},
    }
    if structure is not None:
        info["structure"] = structure
    info["sha256"] = _own_digest(info)
    (folder / INFO).write_text(to_json(info, "manifest"), encoding="utf-8")


def read_info(path: Path | str) -> dict[str, Any]:
    """The manifest of the saved folder ``path``, checked in itself: format, version, checksum and types.

    Keys: ``model``, ``sizes``, ``ties``, ``tensors``, ``files``, ``written_by`` and, of a shrunk model, ``structure`` (see the
    description of the format).

    Raises:
        BadInput: ``path`` is not a folder saved here.
        CorruptFile: damaged, or written by a newer version.
    """
    folder = Path(path).expanduser()
    text = _manifest_text(folder)
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{folder / INFO} is not whole: {error}") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT or not isinstance(info.get("version"), int):
        raise CorruptFile(f"{folder / INFO} does not say format {FORMAT!r} and a version number")
    if info["version"] > VERSION:
        raise CorruptFile(
            f"{folder} is of format version {info['version']}; this library reads up to {VERSION}: upgrade secateurs"
        )
    if info.get("sha256") != _own_digest(info):
        raise CorruptFile(f"{folder / INFO} was altered: its checksum does not fit its content")
    problem = _problem(info)
    if problem:
        raise CorruptFile(f"{folder / INFO}: {problem}")
    return info


def check_files(folder: Path, info: Mapping[str, Any]) -> None:
    """Compare every file with the size and checksum the manifest gives.

    Raises:
        CorruptFile: a file is missing, truncated or altered; the message names it.
    """
    for name, promised in info["files"].items():
        file = folder / name
        if not file.is_file():
            raise CorruptFile(f"{folder} lacks {name!r}, which its manifest lists")
        size = file.stat().st_size
        if size != promised["bytes"]:
            raise CorruptFile(f"{file} has {size} bytes instead of {promised['bytes']}: truncated or altered; copy it again")
        if _digest(file) != promised["sha256"]:
            raise CorruptFile(f"{file} was altered: its checksum (sha256) does not fit its manifest; copy it again")


def _manifest_text(folder: Path) -> str:
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r} is not a folder: give the folder that secateurs.save wrote")
    if not (folder / INFO).is_file():
        hint = "; a Hugging Face folder opens with from_pretrained" if (folder / "config.json").is_file() else ""
        raise BadInput(f"{str(folder)!r} has no {INFO}: secateurs.save did not write it{hint}")
    try:
        return (folder / INFO).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{folder / INFO} is not text: {error}") from error


def _problem(info: Mapping[str, Any]) -> str | None:
    """The first thing in the manifest that has not the promised type, or None."""
    for key in ("model", "sizes", "ties", "tensors", "files"):
        if not isinstance(info.get(key), dict):
            return f"{key!r} is missing or not a table"
    if WEIGHTS not in info["files"]:
        return f"no file entry for {WEIGHTS!r}"
    for name, file in info["files"].items():
        if Path(name).name != name or not isinstance(file, dict) or {"bytes", "sha256"} - file.keys():
            return f"the file entry {name!r} is not a plain file name with bytes and sha256"
    for name, entry in info["tensors"].items():
        if not isinstance(entry, dict) or entry.get("encoding") not in ENCODINGS or entry.get("dtype") not in DTYPES:
            return f"tensor {name!r} has an unknown encoding or dtype"
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            return f"tensor {name!r} has no shape of non-negative integers"
    missing = [alias for alias, name in info["ties"].items() if name not in info["tensors"]]
    if missing:
        return f"{missing[0]!r} is tied to a tensor that is not there"
    return structure_problem(info["structure"]) if "structure" in info else None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _own_digest(info: Mapping[str, Any]) -> str:
    content = {key: value for key, value in info.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
