"""A model's tensors as a file can hold them: named, plain, each stored once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput

__all__ = ["DTYPES", "dtype_name", "plain_state", "ties"]

_NAMES = (
    "bool", "uint8", "int8", "int16", "int32", "int64",
    "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _NAMES}


def dtype_name(dtype: torch.dtype) -> str:
    """``"float32"`` for ``torch.float32``: the name a file uses."""
    return str(dtype).removeprefix("torch.")


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of ``model``, checked to hold plain dense tensors only. Values are not copied.

    Raises:
        BadInput: a wrapper, a model whose pruner is still attached, or a tensor no file can hold; says what would work.
    """
    _check_module(model)
    state = dict(model.state_dict())
    for name, value in state.items():
        reason = _unstorable(value)
        if reason:
            raise BadInput(f"cannot save {name!r}: {reason}")
    return state


def ties(state: dict[str, Tensor]) -> dict[str, str]:
    """``{alias: first name}`` for entries that are the very same memory, seen the same way."""
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, str] = {}
    for name, value in state.items():
        if value.numel() == 0 or value.is_meta:
            continue  # no memory to share
        key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if key in first:
            found[name] = first[key]
        else:
            first[key] = name
    return found


def _check_module(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise BadInput(f"cannot save a {type(model).__name__}: give a torch.nn.Module")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise BadInput(f"cannot save the wrapper {type(model).__name__}: save the model inside it, model.module")
    if hasattr(model, "_orig_mod"):
        raise BadInput("cannot save a compiled wrapper: save the model inside it, model._orig_mod")
    for name, module in model.named_modules():
        if hasattr(type(module), "_secateurs_masked"):
            raise BadInput(
                f"{name or 'the model'!r} still has a pruner attached: call pruner.finish() first, and save its result"
            )


def _unstorable(value: object) -> str | None:
    if not isinstance(value, Tensor):
        return f"it is extra state of type {type(value).__name__}, and only tensors are stored"
    if type(value) not in (Tensor, nn.Parameter):
        return f"it is a {type(value).__name__}; turn it into a plain tensor first"
    if value.is_meta:
        return "it is on the meta device and has no values; load the weights first"
    if value.layout != torch.strided:
        return f"its layout is {value.layout}; use .to_dense() first"
    if value.is_quantized or value.dtype not in DTYPES.values():
        return f"its dtype {value.dtype} is not one of {', '.join(DTYPES)}"
    return None
