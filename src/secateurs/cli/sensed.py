"""Images and recordings as calibration batches, by the model folder's own image processor or feature extractor."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.cli.huggingface import quieten
from secateurs.cli.opening import Opened
from secateurs.cli.text import open_tokenizer
from secateurs.cli.wanted import Batches, Wanted
from secateurs.cli.windows import shifted, takes_labels
from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.statistics.media import AUDIO, IMAGES, Item, find_items, open_image, open_wave, resampled, some

__all__ = ["IMAGES_AT_ONCE", "image_batches", "sound_batches"]

IMAGES_AT_ONCE = 8


def image_batches(wanted: Wanted, opened: Opened) -> tuple[Batches, str]:
    """Images of a folder, of a column (``image`` unless told) or of a dataset, prepared as the folder says; words for them."""
    items = find_items(wanted.source, IMAGES, wanted.column or "image")
    chosen = some(items, wanted.samples, wanted.seed)
    processor = _from_folder("AutoImageProcessor", opened, wanted)
    batches = []
    for start in range(0, len(chosen), IMAGES_AT_ONCE):
        images = [open_image(item) for item in chosen[start : start + IMAGES_AT_ONCE]]
        batches.append(_taken(opened.model, processor(images, return_tensors="pt")))
    return batches, f"{len(chosen)} of {len(items)} images of {wanted.source}"


def sound_batches(wanted: Wanted, opened: Opened) -> tuple[Batches, str]:
    """Recordings of a folder or of a column (``audio`` unless told), one a batch, and words for them.

    An encoder-decoder is to say the text that lies beside a recording (``one.txt`` beside ``one.wav``). Where there is none its
    decoder runs on its start token alone, which is said on stderr: that is little to judge a decoder by.
    """
    items = find_items(wanted.source, AUDIO, wanted.column or "audio")
    chosen = some(items, wanted.samples, wanted.seed)
    extractor = _from_folder("AutoFeatureExtractor", opened, wanted)
    decodes = bool(getattr(getattr(opened.model, "config", None), "is_encoder_decoder", False))
    texts = _Texts(opened, wanted)
    batches = []
    for item in chosen:
        samples, rate = open_wave(item)
        heard = resampled(samples, rate, extractor.sampling_rate)
        features = extractor(heard, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        batches.append(_taken(opened.model, features) | (texts.of(item) if decodes else {}))
    if texts.silent:
        print(f"note: {texts.silent} of {len(chosen)} recordings have no .txt beside them: the decoder runs on its start token "
              "alone there", file=sys.stderr)  # fmt: skip
    return batches, f"{len(chosen)} of {len(items)} recordings of {wanted.source}"


class _Texts:
    """What a decoder is to say of a recording; ``silent`` counts those without a text."""

    def __init__(self, opened: Opened, wanted: Wanted):
        self._opened, self._wanted = opened, wanted
        self._tokenizer: Any = None
        self.silent = 0

    def of(self, item: Item) -> dict[str, Tensor]:
        """Arguments of the decoder, for one recording."""
        model = self._opened.model
        beside = item.path.with_suffix(".txt") if item.path else None
        if beside is None or not beside.is_file():
            self.silent += 1
            return {"decoder_input_ids": shifted(model, torch.zeros(1, 1, dtype=torch.long))}
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self._opened, self._wanted.trust_remote_code)
        ids = torch.tensor([self._tokenizer(beside.read_text(encoding="utf-8").strip())["input_ids"]], dtype=torch.long)
        start: Any = model.config
        if ids.shape[1] > 1 and int(ids[0, 0]) == start.decoder_start_token_id:
            ids = ids[:, 1:]  # the model's own shift puts it there again
        return {"labels": ids} if takes_labels(model) else {"decoder_input_ids": shifted(model, ids)}


def _from_folder(auto: str, opened: Opened, wanted: Wanted) -> Any:
    """What prepares the model's inputs, as its folder describes it."""
    transformers = require("transformers", "transformers")
    folder = Path(opened.path)
    quieten()
    try:
        return getattr(transformers, auto).from_pretrained(
            folder, local_files_only=True, trust_remote_code=wanted.trust_remote_code)  # fmt: skip
    except Exception as error:
        reads = getattr(opened.model, "main_input_name", "inputs")
        raise BadInput(f"{str(folder)!r} holds nothing that prepares {wanted.source!r} ({auto}): {type(error).__name__}: "
                       f"{error}. Instead, {reads!r} can be given ready in a .safetensors file, a row per sample"
                       ) from error  # fmt: skip


def _taken(model: nn.Module, made: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors among ``made`` that the model takes."""
    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in made.items() if isinstance(value, Tensor) and name in taken}
