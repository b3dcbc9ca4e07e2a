"""``load``: the model a saved folder holds, bit for bit, after everything in the folder has been checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require
from secateurs.formats import huggingface
from secateurs.formats.encodings import ENCODINGS
from secateurs.formats.manifest import WEIGHTS, check_files, read_info
from secateurs.formats.state import DTYPES, dtype_name, ties
from secateurs.formats.structure import rebuild

__all__ = ["load", "read_info", "read_tensors"]


def load(
    path: str | os.PathLike[str], factory: Callable[[], nn.Module] | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """The model saved at ``path``, in evaluation mode on ``device``. Nothing in the folder is executed.

    Args:
        path: a folder that :func:`secateurs.save` wrote.
        factory: builds the network, without arguments, as it was when saved (same names, shapes and dtypes); of a model that
            was shrunk, as it was before. What a state dict does not hold, non-persistent buffers for instance, is as the
            factory makes it. Needed for plain modules; a Hugging Face model of transformers' own is rebuilt from its
            configuration.
        device: where the loaded model goes.

    Raises:
        BadInput: not such a folder, no factory where one is needed, or one that builds another network.
        CorruptFile: truncated, altered, inconsistent, or written by a newer version.
        MissingExtra: safetensors (or, for its models, transformers) is not installed.
    """
    folder = Path(path).expanduser()
    info = read_info(folder)
    tensors = _read_checked(folder, info)
    build = factory or _own_factory(folder, info, tensors)
    if "structure" in info:
        model = rebuild(build, info["structure"], tensors)
    else:
        model = build()
        _fill(model, tensors)
    return model.to(device).eval()


def _own_factory(folder: Path, info: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Callable[[], nn.Module]:
    """What builds a model of transformers' own from the folder's configuration."""
    if info["model"].get("kind") == "huggingface":
        dtypes = {name: dtype_name(value.dtype) for name, value in tensors.items()}
        return lambda: huggingface.build(folder, info["model"], dtypes)
    kind = info["model"].get("class")
    raise BadInput(
        f"{str(folder)!r} holds a plain module ({kind}): pass factory=, which builds the network without arguments"
    )


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Every tensor of the saved folder by name, dense, on the CPU; tied names share one tensor. Errors as of :func:`load`."""
    folder = Path(path).expanduser()
    return _read_checked(folder, read_info(folder))


def _read_checked(folder: Path, info: Mapping[str, Any]) -> dict[str, Tensor]:
    check_files(folder, info)
    found: dict[str, Tensor] = {}
    with _open(folder / WEIGHTS) as stored:
        expected = {name + suffix for name, entry in info["tensors"].items() for suffix in ENCODINGS[entry["encoding"]].parts}
        odd = sorted(expected.symmetric_difference(stored.keys()))
        if odd:
            raise CorruptFile(f"{folder / WEIGHTS} and its manifest differ in {len(odd)} tensors, first {odd[0]!r}")
        for name, entry in info["tensors"].items():
            encoding = ENCODINGS[entry["encoding"]]
            try:
                parts = {suffix: stored.get_tensor(name + suffix) for suffix in encoding.parts}
                found[name] = encoding.decode(parts, tuple(entry["shape"]), DTYPES[entry["dtype"]])
            except CorruptFile as error:
                raise CorruptFile(f"tensor {name!r} in {folder / WEIGHTS}: {error}") from error
    return {**found, **{alias: found[name] for alias, name in info["ties"].items()}}


def _open(file: Path) -> Any:
    safetensors = require("safetensors", "files")
    try:
        return safetensors.safe_open(str(file), framework="pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise CorruptFile(f"{file} is not a whole safetensors file: {error}") from error


def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    if not isinstance(model, nn.Module):
        raise BadInput(f"the factory returned {type(model).__name__}: it must return a torch.nn.Module")
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    _check_names(own, tensors)
    for name, value in own.items():
        stored = tensors[name]
        if value.is_meta:
            raise BadInput(f"the factory builds {name!r} on the meta device: build the network on the CPU")
        if value.shape != stored.shape or value.dtype != stored.dtype:
            raise BadInput(f"the factory's {name!r} is {value.dtype} {tuple(value.shape)}, the folder holds {stored.dtype} "
                           f"{tuple(stored.shape)}: build the network as it was when saved")  # fmt: skip
    for alias, name in ties(own).items():
        if not _same_bits(tensors[alias], tensors[name]):
            raise BadInput(f"the factory ties {alias!r} to {name!r}, but the folder holds different values for them")
    model.load_state_dict(tensors)


def _check_names(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    lacking = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    for names, where in ((lacking, "network but not in the folder"), (unknown, "folder but not in the network")):
        if names:
            raise BadInput(f"the factory builds another network: {names[0]!r} and {len(names) - 1} more are in the {where}")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    same_kind = a.dtype == b.dtype and a.shape == b.shape
    return same_kind and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
