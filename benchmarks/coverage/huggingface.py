"""Every vision and text model type of the installed transformers, one class each, in a tiny random configuration."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.entry import Entry, shaken
from benchmarks.coverage.special import INPUTS, SPECIAL
from benchmarks.coverage.tiny import IMAGE, VOCABULARY, tiny

__all__ = ["MOST_PARAMETERS", "TASKS", "build", "example", "found"]

MOST_PARAMETERS = 5_000_000  # a configuration with more is not tiny: a field was not recognised

TASKS = {
    "CAUSAL_LM": "text", "MASKED_LM": "text", "SEQ_TO_SEQ_CAUSAL_LM": "text", "SEQUENCE_CLASSIFICATION": "text",
    "IMAGE_CLASSIFICATION": "vision", "SEMANTIC_SEGMENTATION": "vision", "UNIVERSAL_SEGMENTATION": "vision",
    "DEPTH_ESTIMATION": "vision", "OBJECT_DETECTION": "vision", "IMAGE_TO_IMAGE": "vision", "VIDEO_CLASSIFICATION": "vision",
    "IMAGE": "vision",
}  # fmt: skip


def found() -> Iterator[Entry]:
    """One entry for every class that the tables of transformers name first for a model type; a class comes once."""
    tables = importlib.import_module("transformers.models.auto.modeling_auto")
    types: set[str] = set()
    chosen: dict[str, tuple[str, str]] = {}
    for task, family in TASKS.items():
        table = getattr(tables, f"MODEL_FOR_{task}_MAPPING_NAMES")
        for model_type, names in table.items():
            name = names if isinstance(names, str) else names[0]
            if _HEARS.search(name):
                continue
            if model_type not in types and (name not in chosen or _named_after(name, model_type)):
                chosen[name] = (model_type, family)
        types.update(table)
    for name, (model_type, family) in chosen.items():
        yield entry(model_type, name, family)


_HEARS = re.compile("Audio|A[sS][rR]|Speech|Flamingo|Voxtral|Seamless|Transcribe")  # neither vision nor text alone


def _named_after(name: str, model_type: str) -> bool:
    """Several types share a class: the one it is called by is preferred."""
    return re.split("For|LM|Model|Decoder", name)[0].lower() == re.sub("[-_]", "", model_type)


def entry(model_type: str, name: str, family: str) -> Entry:
    """That of class ``name`` of transformers, for ``model_type``."""
    title = f"transformers/{model_type}"
    return Entry(title, name, family, lambda: build(model_type, name), lambda model: example(model, family))


def configuration(model_type: str, name: str) -> Any:
    """The tiny configuration of class ``name``."""
    import transformers

    return tiny(getattr(transformers, name).config_class, SPECIAL.get(model_type))


def build(model_type: str, name: str) -> nn.Module:
    """The model with random weights, in evaluation mode.

    Raises:
        ValueError: it would not be tiny.
    """
    import transformers

    config, kind = configuration(model_type, name), getattr(transformers, name)
    with torch.device("meta"):
        size = sum(p.numel() for p in kind(config).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size} parameters in the tiny configuration")
    torch.manual_seed(0)
    return shaken(kind(config))


def example(model: nn.Module, family: str) -> dict[str, Tensor]:
    """Inputs for ``model`` by name, as its ``forward`` takes them."""
    takes = inspect.signature(model.forward).parameters
    config: Any = model.config
    if config.model_type in INPUTS:
        return INPUTS[config.model_type]()
    generator = torch.Generator().manual_seed(0)
    if family == "text" or not {"pixel_values", "pixel_values_videos"} & set(takes):
        ids = torch.randint(3, VOCABULARY, (2, 8), generator=generator)
        made = {"input_ids": ids}
        if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
            made["decoder_input_ids"] = torch.randint(3, VOCABULARY, (2, 6), generator=generator)
        return made
    side = getattr(config, "image_size", None) or IMAGE
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    moves = hasattr(config, "num_frames") or "pixel_values_videos" in takes
    frames = (getattr(config, "num_frames", 2),) if moves else ()
    channels = getattr(config, "num_channels", 3) or 3
    name = "pixel_values_videos" if "pixel_values_videos" in takes else "pixel_values"
    return {name: torch.randn(2, *frames, channels, height, width, generator=generator)}
