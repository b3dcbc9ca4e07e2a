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
from secateurs.train.walk.layout import Layout

__all__ = ["Shards", "Streamed", "open_folder", "open_hollow"]

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

    def file(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self.folder / self._files[name]

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
        return next((value.dtype for value in self.hollow().values() if value.is_floating_point()), torch.float32)

    def hollow(self) -> dict[str, Tensor]:
        """Every tensor's shape and dtype, as a tensor on the meta device."""
        found = {}
        for file in dict.fromkeys(self._files.values()):
            with self._open(file) as stored:
                for name in stored.keys():  # noqa: SIM118 (a file is no mapping)
                    part = stored.get_slice(name)
                    shape = part.get_shape()
                    dtype = (part[:0] if shape else stored.get_tensor(name)).dtype
                    found[name] = torch.empty(shape, dtype=dtype, device="meta")
        return found

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
        layout: how the model's tensors lie in the files.
        names: by each of the model's names for a tensor, the one under which ``layout`` knows it: tied tensors have several.

    Raises:
        BadInput: the files lack tensors of the model, or have them in a layout that cannot be read tensor by tensor.
    """

    resident = False

    def __init__(self, model: nn.Module, shards: Shards):
        self.model, self.shards = model, shards
        self.layout = Layout(model, shards.hollow())
        self.names = self._find_names()

    def tensor(self, name: str) -> Tensor:
        """A tensor by the model's name for it, in memory of its own.

        Raises:
            NotFinite: it holds a NaN or an infinity; names the stored tensor and its shard.
        """
        return self.layout.load(self.names[name], self.shards.get)

    def value(self, name: str, held: Tensor) -> Tensor:
        """The stored tensor; ``held`` itself where it is a buffer that no file has."""
        return self.tensor(name) if name in self.names else held

    @contextmanager
    def outside(self, blocks: Iterable[str]) -> Iterator[None]:
        """Inside, layers that lie in none of ``blocks`` are filled when they are called; afterwards they are let go."""
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
            self._let_go(p for path, p in self.model.named_parameters() if not path.startswith(names))

    def open(self, name: str, module: nn.Module) -> None:
        """Read the block."""
        self._fill(name, module, recurse=True)

    def close(self, name: str, module: nn.Module) -> None:
        """Let go of the block's values; what it shares with layers outside stays."""
        outside = {id(p) for path, p in self.model.named_parameters(remove_duplicate=False) if not path.startswith(f"{name}.")}
        self._let_go(parameter for parameter in module.parameters() if id(parameter) not in outside)

    def _let_go(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            if not parameter.is_meta:
                _swap(parameter, torch.empty_like(parameter, device="meta"))
        give_back_freed()

    def _fill(self, path: str, module: nn.Module, recurse: bool) -> None:
        for name, parameter in module.named_parameters(path, recurse=recurse):
            if parameter.is_meta:
                _swap(parameter, self.tensor(name))
        for name, buffer in module.named_buffers(path, recurse=recurse):
            if name in self.names and name not in self._filled:
                buffer.copy_(self.tensor(name))
                self._filled.add(name)

    def _find_names(self) -> dict[str, str]:
        """Every parameter and buffer by the name that is stored: tied ones go by whichever of theirs is."""
        self._filled: set[str] = set()
        tensors = {**dict(self.model.named_parameters(remove_duplicate=False)), **_persistent(self.model)}
        names: dict[int, list[str]] = {}
        for name, tensor in tensors.items():
            names.setdefault(id(tensor), []).append(name)
        found = {name: next((own for own in names[id(t)] if own in self.layout), "") for name, t in tensors.items()}
        lacking = [name for name, stored in found.items() if not stored]
        if lacking:
            raise BadInput(f"{str(self.shards.folder)!r} lacks {len(lacking)} tensors of {type(self.model).__name__}, first "
                           f"{lacking[0]!r} (it has {self.shards.names[0]!r}): open the model in memory instead")  # fmt: skip
        return found


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


def open_folder(folder: str | Path) -> Streamed:
    """The model of a Hugging Face folder with its weights in their files.

    Raises:
        BadInput: no such folder, or one whose tensors cannot be read one at a time.
        CorruptFile: a file is truncated or altered.
    """
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise BadInput(f"{str(path)!r} is no Hugging Face folder (it has no config.json): a memory budget needs one")
    return Streamed(open_hollow(path), Shards(path))


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
