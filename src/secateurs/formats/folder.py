"""Writing a folder whole or not at all: beside its place first, then renamed into it."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateurs.errors import BadInput
from secateurs.files import held_folder, remove_abandoned

__all__ = ["MARKERS", "check_target", "full_disk_told", "replacing"]

MARKERS = ("secateurs.json", "config.json")  # a folder with neither is not a saved model and is never replaced

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


@contextmanager
def full_disk_told(state: str | os.PathLike[str] | None) -> Iterator[None]:
    """Inside, a full disk is a :class:`BadInput` that says what is finished: the blocks in ``state``, if there is one."""
    try:
        yield
    except Exception as error:
        # safetensors has an error type of its own, which tells the number in words alone
        if getattr(error, "errno", None) not in _FULL and f"os error {errno.ENOSPC}" not in str(error):
            raise
        stays = "nothing is kept" if state is None else f"what is finished stays in {str(state)!r}, and the same call goes on"
        raise BadInput(f"there is no room left on the disk ({error}): make some; {stays}") from error


@contextmanager
def replacing(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes ``path`` when the block ends without an error.

    The content reaches the disk (fsync) before the rename. On any error, a full disk or a keyboard interrupt included, the
    new folder is removed and what was at ``path`` is untouched. With ``overwrite`` the old folder, and all in it, goes only
    once the new one is complete; a process killed between the two renames leaves it beside as ``.<name>.<random>.old``.
    New folders of processes that were killed while they filled them go when the next one is made.

    Raises:
        BadInput: ``path`` exists and may not be replaced, or cannot be written; the message says which and why.
    """
    target = Path(path).expanduser().resolve()
    check_target(target, overwrite)
    beside = target.parent / f".{target.name}.{os.urandom(4).hex()}"
    fresh, old = beside.with_name(beside.name + ".partial"), beside.with_name(beside.name + ".old")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        remove_abandoned(_partial(target))
        fresh.mkdir(parents=True)
        with held_folder(fresh):
            yield fresh
            _sync(fresh)
            _swap(fresh, target, old)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        for parent in made:
            _remove_empty(parent)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise BadInput(f"could not write {str(path)!r}: {reason}; nothing was left behind and nothing replaced") from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Raise :class:`BadInput` where :func:`replacing` could not put a folder at ``target``, an absolute path."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BadInput(f"{str(target)!r} is a file: a model is saved as a folder, give another name")
    content = list(target.iterdir())
    if not content:
        return
    if not overwrite:
        raise BadInput(f"{str(target)!r} exists: give another name, or overwrite=True to replace it")
    if not any((target / marker).is_file() for marker in MARKERS) or any(item.is_dir() for item in content):
        raise BadInput(f"{str(target)!r} is not just a saved model (it has no {' or '.join(MARKERS)}, or has folders inside): "
                       "refusing to delete it, give another name")  # fmt: skip


def _partial(target: Path) -> list[Path]:
    """Folders that were to become ``target``."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.partial")
    return [path for path in target.parent.glob(".*.partial") if name.fullmatch(path.name) and path.is_dir()]


def _swap(fresh: Path, target: Path, old: Path) -> None:
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    _sync_one(target.parent)


def _sync(folder: Path) -> None:
    """To the disk, readable by whoever may enter the folder (safetensors makes its files private)."""
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(folder.stat().st_mode & 0o666)
        _sync_one(file)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
