"""``--input``: what a model is traced with, by shapes; models of transformers know their own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput

__all__ = ["example_of"]

_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64,
           "int64": torch.int64, "int32": torch.int32, "bool": torch.bool}  # fmt: skip


def example_of(model: nn.Module, given: Sequence[str]) -> Any:
    """Random inputs of the shapes ``given``, the same at every call; a tuple, or a mapping where they have names.

    A shape without a dtype is in the model's. Without any shape a model of transformers gets a short text, or an image of
    its size.

    Raises:
        BadInput: a shape cannot be read, or there is none and the model does not say.
    """
    if not given:
        return _own(model)
    found = [_parsed(text) for text in given]
    named = [name for name, _, _ in found if name]
    if named and len(named) < len(found):
        raise BadInput(f"--input: {named[0]!r} has a name and others have none; name all of them, or none")
    generator = torch.Generator().manual_seed(0)
    tensors = [_drawn(model, shape, dtype or _dtype(model), generator) for _, shape, dtype in found]
    return dict(zip(named, tensors, strict=True)) if named else tuple(tensors)


def _parsed(text: str) -> tuple[str, tuple[int, ...], torch.dtype | None]:
    match = _INPUT.fullmatch(text)
    if match is None or (match["dtype"] or "float32") not in _DTYPES:
        raise BadInput(f"--input {text!r}: write a shape, as 1x3x32x32, 1x16:int64 or input_ids=1x16:int64 (dtypes: "
                       f"{', '.join(_DTYPES)})")  # fmt: skip
    return match["name"] or "", tuple(map(int, match["shape"].split("x"))), _DTYPES.get(match["dtype"])


def _dtype(model: nn.Module) -> torch.dtype:
    """What the model computes in: that of its first parameter of floats."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _drawn(model: nn.Module, shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    words = [module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)]
    return torch.randint(0, min([2, *words] if dtype == torch.bool else words or [2]), shape, generator=generator).to(dtype)


def _own(model: nn.Module) -> dict[str, Any]:
    """What a model of transformers takes."""
    config, main = getattr(model, "config", None), getattr(model, "main_input_name", None)
    generator = torch.Generator().manual_seed(0)
    if config is not None and main == "pixel_values" and isinstance(getattr(config, "image_size", None), int):
        size = (1, getattr(config, "num_channels", 3), config.image_size, config.image_size)
        return {main: _drawn(model, size, _dtype(model), generator)}
    if config is not None and main == "input_ids" and not getattr(config, "is_encoder_decoder", False):
        ids = _drawn(model, (2, 16), torch.int64, generator)
        takes = inspect.signature(model.forward).parameters
        return {main: ids, **({"use_cache": False} if "use_cache" in takes else {})}
    raise BadInput(f"what does this {type(model).__name__} take? Add --input with a shape, as {_like(model, main)}")


def _like(model: nn.Module, main: str | None) -> str:
    """An example of the flag that fits this kind of model."""
    if main is None or getattr(model, "config", None) is None:
        return "--input 1x3x32x32"
    first = f"--input {main}=" + {"input_ids": "2x16:int64", "pixel_values": "1x3x224x224"}.get(main, "1x80x3000")
    decodes = getattr(model.config, "is_encoder_decoder", False)
    return first + (" --input decoder_input_ids=2x8:int64" if decodes else "")
