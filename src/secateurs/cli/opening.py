"""MODEL on the command line: a Secateurs folder, a Hugging Face folder, or a safetensors file with a factory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateurs.cli.factories import find_factory
from secateurs.cli.huggingface import open_pretrained, quieten
from secateurs.errors import BadInput, CorruptFile, near
from secateurs.extras import require
from secateurs.formats import load, read_info
from secateurs.formats.manifest import INFO

__all__ = ["Opened", "Source"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Opened:
    """A model and where it came from; ``factory`` builds an empty one where the user named one."""

    model: nn.Module
    path: Path
    kind: str
    factory: Callable[[], nn.Module] | None = None


@dataclass(frozen=True)
class Source:
    """MODEL as the user names it, and what is needed to open it."""

    path: Path
    factory: str | None = None
    trust_remote_code: bool = False

    def open(self) -> Opened:
        """The model, in evaluation mode, on the CPU.

        Raises:
            BadInput: it is none of the three, or lacks what it needs; the message says what would work.
            CorruptFile: damaged.
            MissingExtra: safetensors or transformers is not installed.
        """
        path = self.path.expanduser()
        if not path.exists():
            raise BadInput(_absent(path))
        opened = _open_folder(path, self.factory, self.trust_remote_code) if path.is_dir() else _open_file(path, self.factory)
        quieten()
        return opened


def _open_file(path: Path, factory: str | None) -> Opened:
    """A safetensors file filled into the factory's network."""
    if path.suffix in PICKLES:
        raise BadInput(_pickle(path))
    if path.suffix == ".onnx":
        raise BadInput(f"{str(path)!r} is an ONNX file: secateurs prune and secateurs plan take one, this command needs the "
                       "PyTorch model")  # fmt: skip
    if path.suffix != ".safetensors":
        raise BadInput(f"{str(path)!r} is not a model: give a folder (Hugging Face's or Secateurs') or a .safetensors file")
    if (path.parent / INFO).is_file() or (path.parent / "config.json").is_file():
        raise BadInput(f"{str(path)!r} is part of a saved model: give its folder, {str(path.parent)!r}")
    if factory is None:
        raise BadInput(f"{str(path)!r} holds tensors but no network: add --factory module:function, which builds it")
    build = find_factory(factory)
    return Opened(_filled(build(), path), path, "safetensors", build)


def _open_folder(path: Path, factory: str | None, trust_remote_code: bool) -> Opened:
    if (path / INFO).is_file():
        described = read_info(path)["model"]
        if factory is None and described.get("kind") != "huggingface":
            what = f"{str(path)!r} holds a network of your own ({described.get('class')})"
            raise BadInput(f"{what}: add --factory module:function, which builds it")
        build = find_factory(factory) if factory else None
        return Opened(load(path, build), path, "secateurs", build)
    if (path / "config.json").is_file():
        if factory is not None:
            raise BadInput(f"{str(path)!r} is a Hugging Face folder, which says itself what it holds: leave out --factory")
        return Opened(open_pretrained(path, trust_remote_code), path, "huggingface")
    raise BadInput(_no_model(path))


def _filled(model: nn.Module, path: Path) -> nn.Module:
    """``model`` with the tensors of ``path``: the same names, shapes and dtypes; of tied ones one is enough."""
    stored = _read(path)
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = {value.data_ptr() for name, value in own.items() if name in stored and value.numel()}
    missing = [name for name, value in own.items() if name not in stored and value.data_ptr() not in given]
    unknown = [name for name in stored if name not in own]
    odd = [f"{name!r} is {_kind(stored[name])} in the file and {_kind(value)} in the network"
           for name, value in own.items() if name in stored and _kind(stored[name]) != _kind(value)]  # fmt: skip
    problems = [
        *(f"{len(names)} of the {side}'s tensors are not in the {other}, first {names[0]!r}"
          for side, other, names in (("network", "file", missing), ("file", "network", unknown)) if names),
        *odd[:2],
    ]  # fmt: skip
    if problems:
        raise BadInput(f"{str(path)!r} does not fit the network of --factory: " + "; ".join(problems))
    model.load_state_dict(stored, strict=False)
    return model.eval()


def _read(path: Path) -> dict[str, Tensor]:
    safetensors: Any = require("safetensors", "files")
    try:
        return require("safetensors.torch", "files").load_file(path)
    except safetensors.SafetensorError as error:
        raise CorruptFile(f"{str(path)!r} is not a whole safetensors file: {error}") from error


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _absent(path: Path) -> str:
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = near(path.name, beside)
    if not hint and not path.suffix and not path.is_absolute() and len(path.parts) == 2:
        hint = f". A model of the Hugging Face hub must be on this machine first: hf download {path} --local-dir {path.name}"
    return f"{str(path)!r} does not exist" + hint


def _pickle(path: Path) -> str:
    once = f"safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), {path.stem + '.safetensors'!r})"
    return f"{str(path)!r} is a pickle, which can run code when it is opened. Where you trust it, convert it once: {once}"


def _no_model(path: Path) -> str:
    names = sorted(p.name for p in path.iterdir())
    if "adapter_config.json" in names:
        return f"{str(path)!r} is an adapter, not a model: merge it into its base model first (merge_and_unload) and save that"
    files = [n for n in names if n.endswith(".safetensors")]
    if files:
        return f"{str(path)!r} has neither {INFO} nor config.json: give {str(path / files[0])!r} and --factory module:function"
    found = ", ".join(names[:4]) or "nothing"
    return f"{str(path)!r} is not a saved model: it has neither {INFO} nor config.json (found {found})"
