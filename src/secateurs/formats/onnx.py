"""A PyTorch module, pruned or not, as an ONNX file that onnxruntime was seen to run with the same outputs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateurs.errors import BadInput, BrokenPromise
from secateurs.extras import require
from secateurs.files import write_whole

__all__ = ["Exported", "export_onnx"]

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Exported:
    """A written ONNX file.

    Attributes:
        path: where it is.
        opset: version of its operators.
        difference: largest difference between the module's outputs and onnxruntime's on the example, as a share of each
            output's largest entry where that is above one.
        tolerance: what was allowed.
    """

    path: Path
    opset: int
    difference: float
    tolerance: float


def export_onnx(model: nn.Module, example: Any, path: str | Path, *, dynamic: Any = None, opset: int | None = None,
                overwrite: bool = False) -> Exported:  # fmt: skip
    """Write ``model`` as ONNX, after onnxruntime gave the module's outputs on ``example``. The model is left as it is.

    Args:
        model: any module that ``torch.export`` takes.
        example: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        path: a file name that ends in ``.onnx``.
        dynamic: ``dynamic_shapes`` of ``torch.export``: the sizes that may change at run time.
        opset: version of the operators; the exporter's own choice by default.
        overwrite: replace ``path``.

    Raises:
        BadInput: the file exists, the model cannot be exported, or takes 2 GiB and more.
        BrokenPromise: the outputs differ; nothing is written.
        MissingExtra: onnx, onnxruntime or onnxscript is not installed.
    """
    target = _target(Path(path).expanduser(), overwrite)
    args, kwargs = _arguments(example)
    with _evaluating(model):
        proto = _exported(model, args, kwargs, dynamic, opset)
        with torch.no_grad():
            expected = _tensors(model(*args, **kwargs))
    written = _serialised(proto)
    difference, allowed = _compare(written, proto, args, kwargs, expected)
    if not difference <= allowed:
        raise BrokenPromise(f"onnxruntime's outputs differ from the module's by {difference:.3g} of the largest, {allowed:g} "
                            "allowed; nothing was written")  # fmt: skip
    write_whole(target, written)
    version = max(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    return Exported(target, version, difference, allowed)


def _target(path: Path, overwrite: bool) -> Path:
    if path.suffix != ".onnx":
        raise BadInput(f"{str(path)!r}: an ONNX model is one file, name it .onnx")
    if path.is_dir() or (path.exists() and not overwrite):
        raise BadInput(f"{str(path)!r} exists: give another name, or overwrite=True")
    return path


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any, opset: int | None) -> Any:
    for module in ("onnx", "onnxruntime", "onnxscript"):
        require(module, "onnx")
    said: dict[str, Any] = {} if opset is None else {"opset_version": opset}
    try:
        with _silent():
            done = torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=dynamic, verbose=False, **said)
    except Exception as error:  # whatever the model's code or the exporter raises
        line = next((text.strip() for text in str(error).splitlines() if text.strip()), "no message")
        name = type(model).__name__
        raise BadInput(f"this {name} cannot be exported to ONNX: {type(error).__name__}: {line[:300]}") from error
    assert done is not None
    return _bare(done.model_proto)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter tells of its steps, and of libraries that are not there and that nobody asked for."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _bare(proto: Any) -> Any:
    """Without the exporter's notes: stack traces, with the paths of this machine, often larger than a small network."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    return proto


def _serialised(proto: Any) -> bytes:
    size = sum(len(each.raw_data) for each in proto.graph.initializer)
    if size > 2**31 - 2**20:
        raise BadInput(f"the model has {size / 2**30:.1f} GiB of weights; one ONNX file holds less than 2")
    return bytes(proto.SerializeToString())


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _compare(written: bytes, proto: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: list[Tensor],
             ) -> tuple[float, float]:  # fmt: skip
    names = [value.name for value in proto.graph.input]
    leaves = _tensors([args, list(kwargs.values())])
    feeds = {name: kwargs[name] for name in names if isinstance(kwargs.get(name), Tensor)}
    if len(feeds) < len(names):
        feeds = dict(zip(names, leaves, strict=False))
    session = require("onnxruntime", "onnx").InferenceSession(written, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.detach().cpu().numpy() for name, value in feeds.items()})
    if len(found) != len(expected):
        raise BrokenPromise(f"the ONNX model gives {len(found)} outputs, the module {len(expected)}")
    allowed = max((TOLERANCES.get(value.dtype, 0.0) for value in expected), default=1e-4)
    pairs = zip(found, expected, strict=True)
    return max(_difference(torch.as_tensor(ours), theirs.detach().cpu()) for ours, theirs in pairs), allowed


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    if not theirs.numel():
        return 0.0
    gap = (ours.double() - theirs.double()).abs()
    return float(gap.nan_to_num(nan=float("inf")).max()) / max(1.0, float(theirs.double().abs().max()))
