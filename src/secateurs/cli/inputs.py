"""Calibration batches for any model: by what the model reads, or ready inputs for those nothing is known of.

A model of transformers says what it reads: token ids, pixels or sound. The folder's own tokenizer, image processor or feature
extractor makes that of text, images or recordings. A ``.safetensors`` or ``.npz`` file of ready inputs serves every model: its
names are arguments of the model's ``forward``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.cli.opening import Opened
from secateurs.cli.sensed import IMAGES_AT_ONCE, image_batches, sound_batches
from secateurs.cli.text import at_once, known_ids
from secateurs.cli.wanted import Batches, Wanted
from secateurs.cli.windows import own_loss, text_batches
from secateurs.errors import BadInput, near
from secateurs.measure.mode import evaluating
from secateurs.statistics.arrays import ARRAYS, read_arrays
from secateurs.statistics.media import some
from secateurs.train.losses import default_loss

__all__ = ["Drawn", "draw", "loss_of"]

_TEXT = (".txt", ".jsonl")


@dataclass(frozen=True)
class Drawn:
    """Batches, and words for what they are."""

    batches: Batches
    words: str


def draw(wanted: Wanted, opened: Opened) -> Drawn:
    """Batches of what the model reads, floating-point ones in its dtype, tried on it where its weights are there.

    Raises:
        BadInput: the source is not what the model reads, or the model does not take what was made of it.
        CorruptFile: a file is damaged.
        MissingExtra: something that is needed to read it is not installed.
    """
    drawn = _drawn(wanted, opened)
    kind = next((p.dtype for p in opened.model.parameters() if p.is_floating_point()), torch.float32)
    batches = [{name: value.to(kind) if value.is_floating_point() else value for name, value in batch.items()}
               for batch in drawn.batches]  # fmt: skip
    _try(opened.model, batches[0], wanted)
    return Drawn(batches, drawn.words)


def loss_of(wanted: str) -> Callable[[nn.Module, Any], Tensor]:
    """The loss of batches drawn from ``wanted``: the model's own, where there are labels or text predicts itself."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if isinstance(batch, Mapping) and "labels" not in batch and not own_loss(model):
            raise BadInput(f"the loss of a {type(model).__name__} needs labels, which {wanted!r} does not give: add them to a "
                           ".safetensors file of ready inputs, under 'labels', or use a method without gradients (wanda, "
                           "sparsegpt)")  # fmt: skip
        return default_loss(model, batch)

    return loss


def _drawn(wanted: Wanted, opened: Opened) -> Drawn:
    if Path(wanted.source).suffix in ARRAYS:
        return _ready(wanted, opened.model)
    reads = getattr(opened.model, "main_input_name", "input_ids")
    makers: dict[str, Callable[..., tuple[Batches, str]]] = {
        "input_ids": text_batches, "pixel_values": image_batches,
        "input_features": sound_batches, "input_values": sound_batches,
    }  # fmt: skip
    if reads not in makers:
        raise BadInput(f"a {type(opened.model).__name__} reads {reads!r}: give a .safetensors file with it, a row per sample")
    if reads != "input_ids" and Path(wanted.source).suffix in _TEXT:
        what = "images" if reads == "pixel_values" else "recordings"
        raise BadInput(f"{wanted.source!r} is text, and a {type(opened.model).__name__} reads {what}: give a folder of them, "
                       f"or a .safetensors file with {reads!r}")  # fmt: skip
    return Drawn(*makers[reads](wanted, opened))


def _ready(wanted: Wanted, model: nn.Module) -> Drawn:
    """A random part of the rows of a file, as batches."""
    arrays = read_arrays(wanted.source)
    taken = inspect.signature(model.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    if hasattr(model, "main_input_name") or not open_ended:  # transformers' models pass on any name, and read only their own
        for name in (n for n in arrays if n not in taken):
            raise BadInput(f"{wanted.source!r} has {name!r}, which {type(model).__name__} does not take"
                           f"{near(name, taken) or '; it takes ' + ', '.join(taken)}")  # fmt: skip
    ids, known = arrays.get("input_ids"), known_ids(model)
    if ids is not None and known is not None and not 0 <= int(ids.min()) <= int(ids.max()) < known:
        raise BadInput(f"{wanted.source!r} has input_ids from {int(ids.min())} to {int(ids.max())}, and the model knows "
                       f"{known} ids, 0 to {known - 1}")  # fmt: skip
    total = len(next(iter(arrays.values())))
    rows = torch.tensor(some(range(total), wanted.samples, wanted.seed))
    chosen = {name: value[rows] for name, value in arrays.items()}
    size = at_once(ids.shape[1]) if ids is not None and ids.dim() == 2 else IMAGES_AT_ONCE
    parts = {name: value.split(size) for name, value in chosen.items()}
    batches = [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
    return Drawn(batches, f"{len(rows)} of {total} samples of {wanted.source}")


def _try(model: nn.Module, batch: dict[str, Tensor], wanted: Wanted) -> None:
    """Run the model once, so that what it cannot take is said before the work and in words; a hollow one cannot be run."""
    if any(p.is_meta for p in model.parameters()):
        return
    try:
        with evaluating(model):
            model(**batch)
    except Exception as error:
        made = ", ".join(f"{name} {tuple(value.shape)}" for name, value in batch.items())
        raise BadInput(f"a {type(model).__name__} does not take what was made of {wanted.source!r} ({made}): "
                       f"{type(error).__name__}: {error}. A shorter --length may do, or a .safetensors file of ready inputs "
                       "named as its arguments") from error  # fmt: skip
