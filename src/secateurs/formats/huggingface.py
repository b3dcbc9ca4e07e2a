"""Hugging Face models: told apart without importing transformers, and rebuilt by its own classes only."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from secateurs.errors import CorruptFile
from secateurs.extras import require
from secateurs.formats.state import DTYPES, dtype_name

__all__ = ["SIDE_FILES", "build", "copy_side_files", "describe", "is_pretrained", "write_configs"]

CONFIG, GENERATION = "config.json", "generation_config.json"
_ATTENTION = ("eager", "sdpa")  # both come with torch; any other may be missing where the folder is read


#: Files of words and pictures that go with a model; a pruned copy takes them along.
SIDE_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def copy_side_files(source: Path, folder: Path) -> None:
    """Copy those of :data:`SIDE_FILES` that lie in ``source``."""
    for name in SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def is_pretrained(model: nn.Module) -> bool:
    """Whether ``model`` is a ``PreTrainedModel``. If that class was never imported, it cannot be one."""
    modeling = sys.modules.get("transformers.modeling_utils")
    return modeling is not None and isinstance(model, modeling.PreTrainedModel)


def describe(model: nn.Module) -> dict[str, Any]:
    """The manifest's ``model`` entry: enough to rebuild a model of transformers' own, or to name any other."""
    kind = type(model)
    if not is_pretrained(model) or getattr(sys.modules["transformers"], kind.__name__, None) is not kind:
        return {"kind": "module", "class": f"{kind.__module__}.{kind.__qualname__}"}
    persistent = model.state_dict().keys()
    buffers = {name: dtype_name(value.dtype) for name, value in model.named_buffers() if name not in persistent}
    attention = getattr(model.config, "_attn_implementation", None)
    return {"kind": "huggingface", "class": kind.__name__, "attention": attention, "buffers": buffers}


def write_configs(model: Any, folder: Path) -> None:
    """``config.json`` and, for a model that generates, ``generation_config.json``."""
    (folder / CONFIG).write_text(model.config.to_json_string(), encoding="utf-8")
    if getattr(model, "generation_config", None) is not None and model.can_generate():
        (folder / GENERATION).write_text(model.generation_config.to_json_string(), encoding="utf-8")


def build(folder: Path, entry: Mapping[str, Any], dtypes: Mapping[str, Any]) -> nn.Module:
    """The model of ``entry``, with fresh weights of ``dtypes`` (by name), on the CPU.

    Only classes that transformers itself offers are used; ``auto_map`` and any code a folder may name are ignored.

    Raises:
        CorruptFile: the class is not a model of the installed transformers, or the configuration is unreadable.
        MissingExtra: transformers is not installed.
    """
    kind = _model_class(str(entry.get("class")))
    try:
        config = kind.config_class.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CorruptFile(f"{folder / CONFIG} cannot be read: {error}") from error
    if entry.get("attention") in _ATTENTION:
        config._attn_implementation = entry["attention"]  # the other one differs in the last bits
    model = kind(config)
    _cast(model, {**(entry.get("buffers") or {}), **dtypes})
    if (folder / GENERATION).is_file():
        generation = require("transformers", "transformers").GenerationConfig
        model.generation_config = generation.from_dict(json.loads((folder / GENERATION).read_text(encoding="utf-8")))
    return model


def _model_class(name: str) -> Any:
    transformers = require("transformers", "transformers")
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not _is_model_class(kind, transformers.PreTrainedModel):
        raise CorruptFile(f"{name!r} is not a model class of the installed transformers {transformers.__version__}: "
                          "install the version that wrote the folder, or pass factory=")  # fmt: skip
    return kind


def _is_model_class(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and getattr(kind, "config_class", None) is not None


def _cast(model: nn.Module, dtypes: Mapping[str, str]) -> None:
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        wanted = DTYPES.get(dtypes.get(name, ""))
        if wanted is not None and value.dtype != wanted:
            value.data = value.data.to(wanted)
