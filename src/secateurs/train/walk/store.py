"""Where activations wait: in memory up to a budget, beyond it in safetensors files of a scratch folder."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.files import held_folder, remove_abandoned

__all__ = ["Store", "hollow", "is_hollow"]

_PREFIX = ".secateurs-activations-"


@dataclass
class _Held:
    """One value: its structure, its leaves with a place for every tensor, and the tensors themselves or their file."""

    spec: TreeSpec
    leaves: list[Any]
    tensors: list[Tensor]
    devices: list[torch.device]
    file: Path | None = None

    @property
    def bytes(self) -> int:
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.tensors if not t.is_meta}
        return sum(storages.values())


class Store:
    """Values by key: tensors inside tuples, lists and mappings, kept on the CPU and given back where they came from.

    Args:
        budget: bytes of tensors kept in memory; what comes beyond goes to disk. None keeps all in memory.
        scratch: an existing folder in which a folder for the files is made and removed again; the system's own unless told.

    Raises:
        BadInput: the budget is negative, or ``scratch`` is no folder.
    """

    def __init__(self, budget: int | None = None, scratch: str | Path | None = None):
        if budget is not None and budget < 0:
            raise BadInput(f"a budget of {budget} bytes for activations; give 0 (all on disk) or more")
        if scratch is not None and not Path(scratch).is_dir():
            raise BadInput(f"scratch={str(scratch)!r} is no folder")
        self._budget, self._scratch = budget, scratch
        self._held: dict[Hashable, _Held] = {}
        self._folder: Path | None = None
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self.bytes = 0  # in memory now
        self.spilled = 0  # bytes written to disk so far

    def put(self, key: Hashable, value: Any) -> None:
        """Keep ``value`` under ``key``, in the place of what was there."""
        self.drop(key)
        leaves, spec = tree_flatten(value)
        found = [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor)]
        places = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        held = _Held(spec, places, [_owned(t) for t in found], [t.device for t in found])
        if self._budget is not None and self.bytes + held.bytes > self._budget:
            self._spill(held)
        self.bytes += held.bytes
        self._held[key] = held

    def get(self, key: Hashable) -> Any:
        """The value of ``key``, with tensors of its own: code that writes into them does no harm."""
        held = self._held[key]
        tensors = iter([t.to(d, copy=held.file is None) for t, d in zip(self._tensors(held), held.devices, strict=True)])
        return tree_unflatten([next(tensors) if leaf is _TENSOR else leaf for leaf in held.leaves], held.spec)

    def drop(self, key: Hashable) -> None:
        """Forget ``key``, if it is there, and remove its file."""
        held = self._held.pop(key, None)
        if held is not None:
            self.bytes -= held.bytes
            if held.file is not None:
                held.file.unlink(missing_ok=True)

    def hollow_out(self, key: Hashable) -> None:
        """Keep of ``key`` the structure, shapes and dtypes alone: its tensors become meta tensors."""
        value = hollow(self.get(key))
        self.put(key, value)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.clear()
        self.bytes = 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._stack.close()

    def _spill(self, held: _Held) -> None:
        if held.bytes == 0:
            return  # nothing to gain, and hollow tensors have nothing to write
        if self._folder is None:
            remove_abandoned(Path(self._scratch or tempfile.gettempdir()).glob(f"{_PREFIX}*"))
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._scratch))
            self._stack.enter_context(held_folder(self._folder))
        held.file = self._folder / f"{next(self._numbers)}.safetensors"
        seen: set[int] = set()
        named = {str(i): _alone(t, seen) for i, t in enumerate(held.tensors)}
        require("safetensors.torch", "files").save_file(named, str(held.file))
        self.spilled += held.bytes
        held.tensors = []

    def _tensors(self, held: _Held) -> list[Tensor]:
        if held.file is None:
            return held.tensors
        with require("safetensors", "files").safe_open(str(held.file), framework="pt") as stored:
            return [stored.get_tensor(str(i)) for i in range(len(held.devices))]


_TENSOR = object()  # where a tensor stands among the leaves


def _owned(tensor: Tensor) -> Tensor:
    """The tensor on the CPU; a view of something larger is copied, so that it does not keep that alive."""
    tensor = tensor if tensor.device.type in ("cpu", "meta") else tensor.cpu()
    if tensor.is_meta or tensor.untyped_storage().nbytes() <= tensor.numel() * tensor.element_size():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _alone(tensor: Tensor, seen: set[int]) -> Tensor:
    """A contiguous tensor on memory that no tensor in ``seen`` has: a file holds each for itself."""
    tensor = tensor.contiguous()
    storage = tensor.untyped_storage()
    if storage.data_ptr() in seen or storage.nbytes() > tensor.numel() * tensor.element_size():
        tensor = tensor.clone()
    seen.add(tensor.untyped_storage().data_ptr())
    return tensor


def hollow(value: Any) -> Any:
    """``value`` with every tensor on the meta device: its shape without its entries."""
    return tree_map_only(Tensor, lambda t: t.detach().to("meta"), value)


def is_hollow(value: Any) -> bool:
    """Whether a tensor inside ``value`` is on the meta device."""
    return any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_flatten(value)[0])
