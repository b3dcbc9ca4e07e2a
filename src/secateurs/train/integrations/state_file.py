"""A pruner's state as one safetensors file: masks as tensors, the rest as JSON in its header. Never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.train.pruner import Pruner

__all__ = ["load_pruner", "save_pruner"]

KEY = "secateurs-pruner"
_TENSOR = "\0tensor"  # stands for a tensor in the JSON; no name holds a NUL


def save_pruner(pruner: Pruner, path: str | Path) -> None:
    """Write ``pruner.state_dict()`` as the file ``path``, beside it first and then renamed, so it is never half there.

    Raises:
        BadInput: the file cannot be written.
    """
    path, tensors = Path(path), dict[str, Tensor]()
    header = {KEY: json.dumps(_take_out(pruner.state_dict(), "", tensors), allow_nan=False)}
    content = require("safetensors.torch", "files").save(tensors, header)
    try:
        write_whole(path, content)
    except OSError as error:
        raise BadInput(f"the pruner's state could not be written to {str(path)!r}: {error.strerror or error}") from error


def load_pruner(pruner: Pruner, path: str | Path) -> None:
    """Continue ``pruner`` where :func:`save_pruner` left off, before or after it is attached.

    Raises:
        BadInput: no such file, or one of another recipe or model; the pruner is as it was.
        CorruptFile: not a whole state file.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"there is no pruner state {str(path)!r}; without it the masks of that run are lost")
    safetensors: Any = require("safetensors", "files")
    try:
        with safetensors.safe_open(str(path), framework="pt") as stored:
            tree = json.loads((stored.metadata() or {})[KEY])
            state = _put_back(tree, "", {name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise CorruptFile(f"{str(path)!r} is not a whole pruner state: {type(error).__name__}: {error}") from error
    pruner.load_state_dict(state)


def _take_out(tree: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """``tree`` with its tensors moved to ``tensors``, by their place in it."""
    if isinstance(tree, Tensor):
        tensors[place] = tree.contiguous()
        return _TENSOR
    if isinstance(tree, Mapping):
        odd = [key for key in tree if not isinstance(key, str)]
        if odd:
            raise BadInput(f"a pruner's state has the key {odd[0]!r}; JSON takes text only")
        return {key: _take_out(value, f"{place}/{key}", tensors) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_take_out(value, f"{place}/{i}", tensors) for i, value in enumerate(tree)]
    return tree


def _put_back(tree: Any, place: str, tensors: Mapping[str, Tensor]) -> Any:
    if tree == _TENSOR:
        return tensors[place]
    if isinstance(tree, dict):
        return {key: _put_back(value, f"{place}/{key}", tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_put_back(value, f"{place}/{i}", tensors) for i, value in enumerate(tree)]
    return tree
