"""Opening a Hugging Face folder: the class its configuration names, safetensors only, every tensor accounted for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from secateurs.errors import BadInput, CorruptFile, NotFinite
from secateurs.extras import require
from secateurs.train.walk import Shards

__all__ = ["open_pretrained", "quieten", "shards_named"]


def open_pretrained(folder: Path, trust_remote_code: bool = False) -> nn.Module:
    """The model of ``folder`` in the dtype it was saved in. Code in the folder runs only with ``trust_remote_code``.

    Raises:
        BadInput: no safetensors, a class unknown here, or tensors missing, which would be random.
        CorruptFile: the configuration is unreadable, or a file of weights is not whole.
        MissingExtra: transformers is not installed.
    """
    _check_weights(folder)
    transformers = require("transformers", "transformers")
    kind = _model_class(transformers, folder, trust_remote_code)
    Shards(folder)  # names a file that is missing or not whole, which transformers would not
    trust = {"trust_remote_code": True} if trust_remote_code else {}
    quieten()
    try:
        model, info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype="auto", **trust)  # fmt: skip
    except Exception as error:
        what = f"transformers {transformers.__version__} cannot open {str(folder)!r} as {kind.__name__}"
        raise BadInput(f"{what}: {type(error).__name__}: {error}") from error
    _check_loaded(folder, model, info)
    return model.eval()


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    if pickles:
        raise BadInput(f"{str(folder)!r} has its weights in {pickles[0]!r}, a pickle, which can run code when it is opened. "
                       "Where you trust it, convert it once: from_pretrained, then save_pretrained")  # fmt: skip
    raise BadInput(f"{str(folder)!r} has a config.json but no .safetensors file")


def _model_class(transformers: Any, folder: Path, trust_remote_code: bool) -> Any:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names, remote = config.get("architectures") or [], config.get("auto_map") or {}
    except (ValueError, AttributeError) as error:
        raise CorruptFile(f"{str(folder / 'config.json')!r} is not a model's configuration: {error}") from error
    if not names:
        return transformers.AutoModel
    name = str(names[0])
    own = getattr(transformers, name, None)
    if isinstance(own, type) and issubclass(own, transformers.PreTrainedModel):
        return own
    autos = [auto for auto, target in remote.items() if auto.startswith("AutoModel") and str(target).endswith(f".{name}")]
    if autos and trust_remote_code:
        return getattr(transformers, autos[0])
    if autos:
        raise BadInput(f"{str(folder)!r} is a {name}, built by code that lies in the folder: read that code, and add "
                       "--trust-remote-code to run it")  # fmt: skip
    raise BadInput(f"{str(folder)!r} is a {name}, which transformers {transformers.__version__} does not know")


def _check_loaded(folder: Path, model: nn.Module, info: dict[str, Any]) -> None:
    missing = [*info["missing_keys"], *(key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"])]
    if missing:
        raise BadInput(f"{str(folder)!r} lacks {len(missing)} tensors of {type(model).__name__}, or has them in another shape: "
                       f"they would be random (first {sorted(missing)[0]!r})")  # fmt: skip
    unused = sorted(info["unexpected_keys"])
    if unused:
        what = f"{len(unused)} tensors of {str(folder)!r} are not part of {type(model).__name__} and are left out"
        print(f"note: {what}, first {unused[0]!r}", file=sys.stderr)


@contextmanager
def shards_named(folder: Path) -> Iterator[None]:
    """An error about numbers inside notes which of the folder's files holds the tensor that it names."""
    try:
        yield
    except NotFinite as error:
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            stored = Shards(folder)
            for name in [name for name in stored.names if repr(name) in str(error)]:
                error.add_note(f"{name!r} lies in {str(stored.file(name))!r}")
        raise


def quieten() -> None:
    """Leave stderr to this command: transformers, if it is there, prints no bars and no advice of its own."""
    transformers = sys.modules.get("transformers")
    if transformers is not None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
