"""A run that is killed and given again: where its finished blocks wait, and what it may write anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from secateurs.cli.writing import Target
from secateurs.train import BlockDone

__all__ = ["done_with", "partial_folder", "resumable", "resumed"]

_ABSENT = ".absent"  # among the finished blocks: nothing was at OUT when they were made


def partial_folder(out: Path) -> Path:
    """Where finished blocks wait: killed, the same command goes on from it."""
    return out.with_name(f"{out.name}.partial")


def resumed(target: Target) -> Target:
    """``target``, checked; what a killed run has written there already, the same run may write again."""
    target = replace(target, overwrite=target.overwrite or (partial_folder(target.path) / _ABSENT).is_file())
    target.check()
    return target


def resumable(out: Path, tell: Callable[[BlockDone], None]) -> Callable[[BlockDone], None]:
    """``tell`` of a block, and note beside the finished ones that nothing is at ``out``, for :func:`resumed`."""

    def told(done: BlockDone) -> None:
        if not out.exists() and partial_folder(out).is_dir():
            (partial_folder(out) / _ABSENT).touch()
        tell(done)

    return told


def done_with(out: Path) -> None:
    """``out`` is written and proved, and its blocks need not be kept; killed meanwhile, none is taken for a part of a run."""
    keep = partial_folder(out)
    if keep.is_dir():
        shutil.rmtree(keep.rename(keep.with_name(f".{keep.name}.{os.urandom(4).hex()}.old")), ignore_errors=True)
