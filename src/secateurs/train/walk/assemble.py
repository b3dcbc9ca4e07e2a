"""From the finished blocks of a streamed walk and the shards it read to a folder that transformers opens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.formats.huggingface import copy_side_files
from secateurs.train.walk.shards import Streamed
from secateurs.train.walk.state import finished_files

__all__ = ["assemble"]

_CONFIGS = ("config.json", "generation_config.json")


def assemble(source: Streamed, state: str | Path, out: str | Path, most: int = 2 * 2**30) -> None:
    """Write the pruned model as shards with an index, under the names of the model's state dict.

    Finished blocks are linked, or copied where the disk forbids it, from the ``state`` folder; everything else is copied
    from the shards that ``source`` reads, in files of ``most`` bytes or one tensor, with the configuration and tokenizer files
    beside them. No more than one such file is in memory.

    Raises:
        BadInput: ``out`` exists and is not empty.
        CorruptFile: the state folder's list of blocks cannot be read.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{str(out)!r} is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    where: dict[str, str] = {}
    for path in [Path(state) / file for file in finished_files(state)]:
        _link(path, folder / f"model-{path.name}")
        where |= dict.fromkeys(_names(path), f"model-{path.name}")
    for i, tensors in enumerate(_rest(source, set(where), most)):
        file = f"model-rest-{i:05d}.safetensors"
        require("safetensors.torch", "files").save_file(tensors, str(folder / file), metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
    for name in _CONFIGS:
        if (source.shards.folder / name).is_file():
            shutil.copyfile(source.shards.folder / name, folder / name)
    copy_side_files(source.shards.folder, folder)
    total = sum((folder / file).stat().st_size for file in set(where.values()))
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_whole(folder / "model.safetensors.index.json", (json.dumps(index, indent=1) + "\n").encode())


def _rest(source: Streamed, done: set[str], most: int) -> Iterator[dict[str, Tensor]]:
    """The tensors that no finished block has, each once under the first of its names, in files' worth."""
    held: dict[str, Tensor] = {}
    taken, size = {source.stored.get(name) for name in done}, 0
    for name, stored in source.stored.items():
        if stored in taken:
            continue
        taken.add(stored)
        held[name] = source.shards.get(stored)
        size += held[name].nbytes
        if size >= most:
            yield held
            held, size = {}, 0
    if held:
        yield held


def _names(path: Path) -> tuple[str, ...]:
    with require("safetensors", "files").safe_open(str(path), framework="pt") as stored:
        return tuple(stored.keys())


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)
