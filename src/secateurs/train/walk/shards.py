"""A model whose weights stay in their safetensors files: read one block at a time, and let go when the block is finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput, CorruptFile, NotFinite
from secateurs.extras import require
from secateurs.measure.process import give_back_freed

__all__ = ["Shards", "Streamed", "open_hollow"]

_INDEX = "model.safetensors.index.json"


class Shards:
    """The tensors of a folder's safetensors files, by name; nothing is read until it is asked for.

    Raises:
        BadInput: there is no such file, or one that the index names is missing.
        CorruptFile: a file or the index is truncated or altered.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._files: dict[str, str] = {}
        for file in self._listed():
            if not (self.folder / file).is_file():
                raise BadInput(f"{str(self.folder)!r} lacks the shard {file!r} that its {_INDEX} names")
            with self._open(file) as stored:
                self._files |= dict.fromkeys(stored.keys(), file)

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name."""
        return tuple(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def get(self, name: str) -> Tensor:
        """A tensor, on the CPU, in memory of its own.

        Raises:
            NotFinite: it holds a NaN or an infinity; names the tensor and its shard.
        """
        file = self._files[name]
        with self._open(file) as stored:
            value: Tensor = stored.get_tensor(name).clone()
        if value.is_floating_point() and value.numel() and not all(map(torch.isfinite, torch.aminmax(value))):  # no copy
            raise NotFinite(f"{name!r} in {str(self.folder / file)!r} has entries that are NaN or infinite")
        return value

    def dtype(self) -> torch.dtype:
        """The dtype of the first floating tensor."""
        for name, file in self._files.items():
            with self._open(file) as stored:
                dtype = stored.get_slice(name)[:0].dtype if stored.get_slice(name).get_shape() else None
            if dtype is not None and dtype.is_floating_point:
                return dtype
        return torch.float32

    def _listed(self) -> list[str]:
        index = self.folder / _INDEX
        if index.is_file():
            try:
                return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise CorruptFile(f"{str(index)!r} is not an index of shards: {error}") from error
        if (self.folder / "model.safetensors").is_file():  # others beside it are a plan's, or of no part of the model
            return ["model.safetensors"]
        found = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if not found:
            raise BadInput(f"{str(self.folder)!r} holds no .safetensors file")
        return found

    def _open(self, file: str) -> Any:
        safetensors = require("safetensors", "files")
        try:
            return safetensors.safe_open(str(self.folder / file), framework="pt")
        except (safetensors.SafetensorError, OSError) as error:
            raise CorruptFile(f"{str(self.folder / file)!r} is not a whole safetensors file: {error}") from error


class Streamed:
    """A :class:`~secateurs.train.walk.Source` of blocks from files, for a ``model`` that was built on the meta device.

    Layers outside the blocks get their values when they are first called, and keep them.

    Args:
        model: with parameters on the meta device, buffers that no file has on the CPU.
        shards: where the values are, under the names of the model's state dict, with or without its base model's prefix.

    Attributes:
        stored: by the model's name for a tensor, the files' name for it.

    Raises:
        BadInput: the files lack tensors of the model, or have them in another shape.
    """

    resident = False

    def __init__(self, model: nn.Module, shards: Shards):
        self.model, self.shards = model, shards
        self.stored = self._find_names()

    @contextmanager
    def outside(self, blocks: Iterable[str]) -> Iterator[None]:
        """Inside, layers that lie in none of ``blocks`` are filled when they are called."""
        names = tuple(f"{name}." for name in blocks)
        handles = [
            module.register_forward_pre_hook(lambda module, args, path=path: self._fill(path, module, recurse=False))
            for path, module in self.model.named_modules()
            if not f"{path}.".startswith(names) and (module._parameters or module._buffers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def open(self, name: str, module: nn.Module) -> None:
        """Read the block."""
        self._fill(name, module, recurse=True)

    def close(self, name: str, module: nn.Module) -> None:
        """Let go of the block's values; what it shares with layers outside stays."""
        outside = {id(p) for path, p in self.model.named_parameters(remove_duplicate=False) if not path.startswith(f"{name}.")}
        for parameter in module.parameters():
            if id(parameter) not in outside:
                _swap(parameter, torch.empty_like(parameter, device="meta"))
        give_back_freed()

    def _fill(self, path: str, module: nn.Module, recurse: bool) -> None:
        for name, parameter in module.named_parameters(path, recurse=recurse):
            if parameter.is_meta:
                _swap(parameter, self.shards.get(self.stored[name]))
        for name, buffer in module.named_buffers(path, recurse=recurse):
            if name in self.stored and name not in self._filled:
                buffer.copy_(self.shards.get(self.stored[name]))
                self._filled.add(name)

    def _find_names(self) -> dict[str, str]:
        """The stored name of every parameter and buffer; tied ones go by whichever of their names is stored."""
        self._filled: set[str] = set()
        tensors = {**dict(self.model.named_parameters(remove_duplicate=False)), **_persistent(self.model)}
        names: dict[int, list[str]] = {}
        for name, tensor in tensors.items():
            names.setdefault(id(tensor), []).append(name)
        found, lacking = {}, []
        for name, tensor in tensors.items():
            stored = next((s for own in names[id(tensor)] for s in self._spellings(own) if s in self.shards), None)
            if stored is None:
                lacking.append(name)
            else:
                found[name] = stored
        if lacking:
            raise BadInput(f"{str(self.shards.folder)!r} lacks {len(lacking)} tensors of {type(self.model).__name__}, first "
                           f"{lacking[0]!r} (it has {self.shards.names[0]!r}): open the model in memory instead")  # fmt: skip
        return found

    def _spellings(self, name: str) -> tuple[str, ...]:
        prefix = getattr(self.model, "base_model_prefix", "")
        return (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}") if prefix else (name,)


def _persistent(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict has."""
    found = {}
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                found[f"{path}.{name}".removeprefix(".")] = buffer
    return found


def _swap(parameter: nn.Parameter, value: Tensor) -> None:
    """Put ``value`` into the parameter object itself, so that whoever holds it sees it."""
    if value.shape != parameter.shape:
        raise BadInput(f"a stored tensor has shape {tuple(value.shape)}, the model's {tuple(parameter.shape)}")
    torch.utils.swap_tensors(parameter, nn.Parameter(value, requires_grad=parameter.requires_grad))


def open_hollow(folder: str | Path, kind: type[nn.Module] | None = None) -> nn.Module:
    """A transformers model built from the folder's configuration with its parameters on the meta device.

    Only classes of transformers' own are used, and no code of the folder's.

    Raises:
        BadInput: no configuration, or a class that transformers does not have.
        MissingExtra: transformers is not installed.
    """
    transformers = require("transformers", "transformers")
    empty = require("accelerate", "transformers").init_empty_weights
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise BadInput(f"{str(folder)!r} has no config.json")
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    kind = kind or _class_of(transformers, config, path)
    with empty(include_buffers=False):
        model: Any = kind._from_config(config, dtype=Shards(path).dtype())  # type: ignore[attr-defined]
    model.tie_weights()  # being emptied one by one has parted them
    made: nn.Module = model.eval()
    return made


def _class_of(transformers: Any, config: Any, path: Path) -> type[nn.Module]:
    names: Mapping[int, str] = dict(enumerate(config.architectures or []))
    kind = getattr(transformers, names.get(0, ""), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise BadInput(f"{str(path)!r} is a {names.get(0)}, which is no model class of transformers {transformers.__version__}")
    return kind
