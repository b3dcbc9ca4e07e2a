"""``save``: a model as a folder, each tensor dense or as bit mask and values, whichever is smaller."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from secateurs.core.count import paper_bytes
from secateurs.errors import BadInput, near
from secateurs.extras import require
from secateurs.formats import huggingface
from secateurs.formats.encodings import Encoding, encode, minus_zeros, nonzero_bits
from secateurs.formats.folder import replacing
from secateurs.formats.manifest import WEIGHTS, to_json, write_info
from secateurs.formats.state import dtype_name, plain_state, ties
from secateurs.formats.structure import loose_buffers, record_of

__all__ = ["save"]


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    recipe: Any = None,
    plan: Any = None,
    report: Any = None,
    format: str = "secateurs",
    overwrite: bool = False,
) -> None:
    """Write ``model`` as the folder ``path``; it appears complete or not at all.

    Args:
        model: a plain module with its zeros in place (after ``pruner.finish()``), on any device.
        path: the folder to make; missing parents are made too.
        recipe: how the model came about: JSON values, or an object with ``to_dict()``. Written as ``recipe.json``.
        plan: an object with ``save(folder)``, which writes its own files there.
        report: JSON values or an object with ``to_dict()``. Written as ``report.json``.
        format: ``"secateurs"``, the sparse folder that :func:`secateurs.load` reads, or ``"huggingface"``, an ordinary dense
            folder that ``from_pretrained`` opens.
        overwrite: replace a saved model at ``path``, with all its folder holds, once the new one is complete.

    Raises:
        BadInput: the model cannot be stored, ``path`` exists or cannot be written (a full disk too). Nothing is left behind.
        MissingExtra: safetensors is not installed.
    """
    write = _WRITERS.get(format)
    if write is None:
        raise BadInput(f"unknown format {format!r}: use one of {', '.join(map(repr, _WRITERS))}{near(format, _WRITERS)}")
    if hasattr(model, "validate_inputs") and isinstance(model, fx.GraphModule):
        raise BadInput("this is the module of an exported program, which nobody's factory builds again: write it with "
                       "sc.export_onnx(model, example, 'model.onnx'), or keep it with torch.export.save(torch.export.export("
                       "model, (example,)), 'model.pt2')")  # fmt: skip
    state = plain_state(model)
    sides = {"recipe": recipe, "report": report}
    texts = {f"{what}.json": to_json(value, what) for what, value in sides.items() if value is not None}
    failed_write = require("safetensors", "files").SafetensorError
    with replacing(path, overwrite) as folder, _as_os_error(failed_write):
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        if plan is not None:
            plan.save(folder)
        write(model, state, folder)


def _write_sparse(model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    state = {**state, **loose_buffers(model)}
    aliases = ties(state)
    entries: dict[str, dict[str, Any]] = {}
    stored: dict[str, Tensor] = {}
    wasted = 0
    for name, value in state.items():
        if name not in aliases:
            tensor = value.detach().to("cpu").contiguous()
            encoding, parts = encode(name, tensor, state.keys())
            stored |= {name + suffix: part for suffix, part in parts.items()}
            entries[name] = _entry(encoding, tensor, parts)
            wasted += minus_zeros(tensor)
    _warn_of_minus_zeros(wasted, sum(state[name].numel() for name in entries))
    require("safetensors.torch", "files").save_file(_unshared(stored), str(folder / WEIGHTS))
    described = huggingface.describe(model)
    if described["kind"] == "huggingface":
        huggingface.write_configs(model, folder)
    parameters = [name for name, _ in model.named_parameters() if name in entries]
    write_info(folder, described, entries, aliases, _sizes(entries, stored, state, parameters), record_of(model))


def _write_dense(model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    if not huggingface.is_pretrained(model):
        raise BadInput(f"a {type(model).__name__} is not a Hugging Face model: save it with format='secateurs'")
    if record_of(model) is not None:
        raise BadInput(f"the layers of this {type(model).__name__} have widths of their own, which no configuration says: "
                       "save it with format='secateurs', and open it with secateurs.load")  # fmt: skip
    model.save_pretrained(folder)  # type: ignore[operator]


@contextmanager
def _as_os_error(kind: type[Exception]) -> Iterator[None]:
    """safetensors reports a full disk by an error type of its own."""
    try:
        yield
    except kind as error:
        raise OSError(str(error)) from error


_WRITERS = {"secateurs": _write_sparse, "huggingface": _write_dense}


def _entry(encoding: Encoding, tensor: Tensor, parts: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "encoding": encoding.name,
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
        "nonzero": nonzero_bits(tensor),
        "bytes": sum(part.nbytes for part in parts.values()),
    }


def _sizes(
    entries: Mapping[str, Any], stored: Mapping[str, Tensor], state: Mapping[str, Tensor], parameters: list[str]
) -> dict[str, int]:
    """Totals of the folder. The paper's accounting is Zhu & Gupta (2017)."""
    size = sum(state[name].numel() for name in parameters)
    nonzero = sum(entries[name]["nonzero"] for name in parameters)
    return {
        "parameters": size,
        "nonzero": nonzero,
        "payload_bytes": sum(part.nbytes for part in stored.values()),
        "dense_bytes": sum(state[name].nbytes for name in entries),
        "paper_bytes": math.ceil(paper_bytes(size, nonzero)),
    }


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of those that are part of a larger memory or overlap another: safetensors takes none of them."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        whole = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        result[name] = tensor if whole else tensor.clone()
    return result


def _warn_of_minus_zeros(count: int, size: int) -> None:
    """``weight * mask`` makes minus zeros, which cost as much as any value: say so when they are many."""
    if count > size // 100:
        text = f"{count} of {size} entries are minus zero and are stored as values, so the file is larger than it need be"
        warnings.warn(f"{text}; adding 0.0 to a tensor turns them into zeros", stacklevel=4)
